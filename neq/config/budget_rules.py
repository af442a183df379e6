"""Resolves a run's budget and SU lists: flags take precedence over the scheme, the scheme over the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from decimal import Decimal
from typing import get_args

from neq.config.catalog import (
    SchemeEntry,
    check_lists,
    is_recorded_file,
    network,
    plain_network,
    recorded_scheme,
    scheme,
)
from neq.config.keys import flatten_config
from neq.config.policies import POLICIES
from neq.config.schema import BudgetUnit, Config
from neq.utils.errors import UserError, shown

_MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
SIZES = {
    **{"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
}
# Suffix of an amount -> the unit that it implies, what such an amount is called, and how many of the unit.
_AMOUNTS = {
    **{suffix: ("bytes", "a size", times) for suffix, times in SIZES.items()},
    "ms": ("time", "a time", 10**6),
}
_SHARES = {"%": None, **{f"%{unit}": unit for unit in get_args(BudgetUnit)}}
NO_LISTS: Mapping[str, object] = {"n_bias_update": 0, "manual_weight_idx": (), "weight_update_ratio": ()}


def spelled_out(flat: Mapping[str, object]) -> dict[str, object]:
    """Settings with a budget such as `1.5M`, `30%`, `20%time`, `64MiB` or `30ms` replaced by a number.

    A share becomes a ratio, a size an amount in bytes, a time one in nanoseconds; `20MMACs` is 20M macs.

    Args:
        flat: flat settings from one source.

    Raises:
        UserError: the budget cannot be parsed, or contradicts the ratio or unit beside it.
    """
    budget = flat.get("budget")
    if not isinstance(budget, str):
        return dict(flat)
    if budget.rstrip().endswith("MACs"):
        if flat.get("budget_unit") not in (None, "macs"):
            given = shown(flat["budget_unit"])
            raise UserError(f"budget {budget} is of MACs, but budget_unit is {given}; leave budget_unit out")
        return spelled_out({**flat, "budget": budget.rstrip().removesuffix("MACs"), "budget_unit": "macs"})
    found = re.fullmatch(r"\s*(\d[\d_]*(?:\.\d+)?|\.\d+)\s*([A-Za-z%]*)\s*", budget)
    suffix = found[2] if found else "?"
    if found is None or suffix not in {*_MULTIPLES, *_AMOUNTS, *_SHARES}:
        raise UserError(
            f"budget {shown(budget)} is not allowed: give a number (192311, 1.5M), a share (30%, 20%time), "
            "a size (64MiB), MACs (20MMACs) or a time (30ms)"
        )
    number = Decimal(found[1].replace("_", ""))
    if suffix in _MULTIPLES:
        amount = number * _MULTIPLES[suffix]
        if amount != round(amount):
            raise UserError(f"budget {shown(budget)} is not allowed: it is no whole number; a share is 30%")
        return {**flat, "budget": round(amount)}
    if suffix in _SHARES:
        unit, ratio = _SHARES[suffix], float(number / 100)
        kind = f"a share of {unit}"
        if flat.get("ratio") not in (None, ratio):
            raise UserError(f"ratio {flat['ratio']} and budget {budget} are both given; give one of them")
        wanted: dict[str, object] = {"ratio": ratio, "budget": None}
    else:
        unit, kind, times = _AMOUNTS[suffix]
        wanted = {"budget": round(number * times)}
    if unit is None:
        return {**flat, **wanted}
    if flat.get("budget_unit") not in (None, unit):
        raise UserError(
            f"budget {budget} is {kind}, but budget_unit is {shown(flat['budget_unit'])}; "
            "give a number, or leave budget_unit out"
        )
    return {**flat, **wanted, "budget_unit": unit}


def at_home(entry: SchemeEntry, net_name: str) -> bool:
    """Whether a scheme's lists mean the convs of that network; a scheme of no network has no lists."""
    return entry.network is not None and plain_network(entry.network) == plain_network(net_name)


def resolve_budget(
    config: Config, overridden: Set[str], published_budget: int | None = None
) -> tuple[dict[str, object], list[str]]:
    """The budget and lists that scheme, ratio, budget and lists resolve to.

    Args:
        config: file and overrides merged.
        overridden: the keys that the overrides set.
        published_budget: `glob_num_params` of a published file, parameters.

    Returns:
        The settings to change, and log lines about them. Where an override contradicts the scheme, the
        scheme's name is dropped, so that the result resolves to itself.

    Raises:
        UserError: both ratio and budget are overridden, or a scheme without a budget has none beside it.
    """
    flat = flatten_config(config)
    unit = config.NEq_config.budget_unit
    own = {name: flat[name] for name in ("ratio", "budget", *NO_LISTS) if name in overridden}
    if "ratio" in own and "budget" in own:
        raise UserError(f"ratio {own['ratio']} and budget {own['budget']} are both given; give one of them")
    if "ratio" in own:
        own["budget"] = None
    elif "budget" in own:
        own["ratio"] = None
    name = config.NEq_config.scheme
    if name is None:
        wanted, notes = ({}, []) if "ratio" in own else _budget_of_file(config, published_budget)
        return {**wanted, **own}, notes
    if is_recorded_file(name):
        return _budget_of_recorded_file(config, name, own)
    entry = scheme(name)
    wanted, notes = _budget_of_scheme(config, name, entry, published_budget, needed="ratio" not in own)
    if entry.network is not None and "ratio" not in own and unit != "parameters":
        if "budget_unit" in overridden:
            raise UserError(
                f"scheme {name!r} has a budget in parameters, budget_unit is {unit!r}; "
                "give a budget of your own with --budget, or leave one of them out"
            )
        wanted["budget_unit"] = "parameters"
    changed = [key for key in own if key in wanted and own[key] != wanted[key] and own[key] is not None]
    if changed:
        own["scheme"] = None
        given = ", ".join(changed)
        notes.append(f"scheme {name}: overridden by {given}; the run is recorded without the scheme's name")
    return {"scheme": recorded_scheme(name), **wanted, **own}, notes


def _budget_of_recorded_file(
    config: Config, name: str, own: Mapping[str, object]
) -> tuple[dict[str, object], list[str]]:
    """A scheme that was read from a file before: its lists and its budget are recorded beside its name."""
    if any(value is not None for value in own.values()):
        note = f"scheme {name}: overridden by {', '.join(own)}; the run is recorded without the scheme's name"
        return {**own, "scheme": None}, [note]
    if config.NEq_config.ratio is None and config.NEq_config.budget is None:
        raise UserError(
            f"scheme {shown(name)} is how a run records the content of a scheme file, and there is no budget "
            "beside it; give the path of the file"
        )
    return {}, []


def _budget_of_file(config: Config, total: int | None) -> tuple[dict[str, object], list[str]]:
    ratio, budget = config.NEq_config.ratio, config.NEq_config.budget
    if ratio is not None and budget is not None:
        # As in the published code, whose files may have both.
        note = f"ignoring budget={budget:,}: ratio {ratio} is given too; scheme_fixed_budget uses the budget"
        return {"budget": None}, [note]
    if ratio is not None or budget is not None:
        return {}, []
    if total is not None and config.NEq_config.budget_unit == "parameters":
        note = f"neither ratio nor budget is given: using glob_num_params={total:,} as the budget"
        return {"budget": total}, [note]
    return {"ratio": 1.0}, ["neither ratio nor budget is given: using ratio 1, every neuron may be updated"]


def _budget_of_scheme(
    config: Config, name: str, entry: SchemeEntry, published_budget: int | None, needed: bool
) -> tuple[dict[str, object], list[str]]:
    """The settings of a scheme; `needed`: no flag gives a budget, so the scheme must."""
    net_name = config.net_config.net_name
    ratio, budget = entry.ratio, entry.budget
    if ratio is None and budget is None:
        budget = config.NEq_config.budget
        if budget is None:
            budget = published_budget
        if budget is None and needed:
            raise UserError(f"scheme {name!r} has no budget of its own; give one with --budget N")
    if entry.network is None:
        return {"ratio": ratio, "budget": budget}, []
    if at_home(entry, net_name):
        return {"ratio": ratio, "budget": budget, **{key: getattr(entry, key) for key in NO_LISTS}}, []
    if ratio is None and budget is not None:
        total = network(entry.network).total_weights
        if total is None:  # of a scheme file: the catalog states it of the networks of its schemes
            raise UserError(
                f"scheme {name!r} is of {entry.network}, whose weights are not known before it is built; "
                f"give the scheme a ratio to use it with {net_name}"
            )
        ratio = round(budget / total, 10)
    note = f"scheme {name} is of {entry.network}: {net_name} uses its ratio {ratio}, not its lists"
    return {"ratio": ratio, "budget": None, **NO_LISTS}, [note]


def check_lists_given(config: Config, scheme_name: str | None) -> None:
    """Checks the lists of a resolved configuration against the policies that need them.

    Args:
        config: the resolved configuration.
        scheme_name: the scheme that was asked for.

    Raises:
        UserError: the lists do not fit together, or are missing.
    """
    lists, chosen = config.backward_config, config.NEq_config
    try:
        check_lists(lists.manual_weight_idx, lists.weight_update_ratio)
    except ValueError as error:
        raise UserError(str(error)) from None
    policies = {"neuron_selection": chosen.neuron_selection, "initialization": chosen.initialization}
    using = [f"{key} {name!r}" for key, name in policies.items() if POLICIES[name].needs == "lists"]
    if not using or lists.manual_weight_idx:
        return
    net_name = config.net_config.net_name
    reason = "no scheme is given"
    if scheme_name is not None:
        entry = SchemeEntry() if is_recorded_file(scheme_name) else scheme(scheme_name)
        reason = f"scheme {scheme_name!r} has no lists"
        if entry.network is not None and not at_home(entry, net_name):
            reason = f"scheme {scheme_name!r} is of {entry.network}, of which only the ratio applies"
    raise UserError(
        f"{using[0]} needs lists for network {net_name!r}: {reason}; "
        "give one of its own schemes, or manual_weight_idx and weight_update_ratio"
    )
