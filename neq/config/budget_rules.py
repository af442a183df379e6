"""Which budget and which SU lists a run gets: flag over scheme over file."""

from __future__ import annotations

from collections.abc import Mapping, Set

from neq.config.catalog import PRE_TRAINED, SchemeEntry, check_lists, network, scheme
from neq.config.keys import flatten_config
from neq.config.schema import Config
from neq.utils.errors import UserError

NO_LISTS: Mapping[str, object] = {"n_bias_update": 0, "manual_weight_idx": (), "weight_update_ratio": ()}


def plain_network(name: str) -> str:
    """The name without `pre_trained_` and `_folded`: the same convs, the same conv indices."""
    return name.removeprefix(PRE_TRAINED).removesuffix("_folded")


def at_home(entry: SchemeEntry, net_name: str) -> bool:
    """Whether a scheme's lists mean the convs of that network; a scheme of no network has no lists."""
    return entry.network is not None and plain_network(entry.network) == plain_network(net_name)


def settle_budget(config: Config, overridden: Set[str]) -> tuple[dict[str, object], list[str]]:
    """The settings that scheme, ratio, budget and lists come down to.

    Args:
        config: what file and overrides say together.
        overridden: the leaves that the overrides gave.

    Returns:
        the leaves to change, and the log lines that say so. A scheme that an override contradicts is no
        longer that scheme: its name goes, so that the result reads back as it is.

    Raises:
        UserError: when both ratio and budget are overridden, or no budget is given where one is needed.
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
        wanted, notes = ({}, []) if "ratio" in own else _budget_of_file(config)
        return {**wanted, **own}, notes
    entry = scheme(name)
    wanted, notes = _budget_of_scheme(config, name, entry, needed="ratio" not in own)
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
        notes.append(f"scheme {name}: {given} given beside it wins; the run no longer bears its name")
    return {**wanted, **own}, notes


def _budget_of_file(config: Config) -> tuple[dict[str, object], list[str]]:
    ratio, budget = config.NEq_config.ratio, config.NEq_config.budget
    if ratio is not None and budget is not None:
        return {"ratio": None}, [f"budget {budget} and ratio {ratio} are both given: the budget counts"]
    total = config.NEq_config.glob_num_params
    if (
        ratio is None
        and budget is None
        and total is not None
        and config.NEq_config.budget_unit == "parameters"
    ):
        return {"budget": total}, [
            f"neither ratio nor budget is given: the budget is glob_num_params {total}"
        ]
    if ratio is None and budget is None:
        return {"ratio": 1.0}, ["neither ratio nor budget is given: ratio 1, everything may be updated"]
    return {}, []


def _budget_of_scheme(
    config: Config, name: str, entry: SchemeEntry, needed: bool
) -> tuple[dict[str, object], list[str]]:
    """What a scheme sets; `needed`: it must come to a budget, no flag gives one."""
    net_name = config.net_config.net_name
    ratio, budget = entry.ratio, entry.budget
    if ratio is None and budget is None:
        budget = config.NEq_config.budget
        if budget is None:
            budget = config.NEq_config.glob_num_params
        if budget is None and needed:
            raise UserError(f"scheme {name!r} has no budget of its own; give one with --budget N")
    if entry.network is None:
        return {"ratio": ratio, "budget": budget}, []
    if at_home(entry, net_name):
        return {"ratio": ratio, "budget": budget, **{key: getattr(entry, key) for key in NO_LISTS}}, []
    if ratio is None:
        total = network(entry.network).total_weights
        assert budget is not None
        assert total is not None, "the catalog states it of the networks of schemes"
        ratio = round(budget / total, 10)
    note = f"scheme {name} belongs to {entry.network}; it lends {net_name} its ratio {ratio}, not its lists"
    return {"ratio": ratio, "budget": None, **NO_LISTS}, [note]


def check_su(config: Config, scheme_name: str | None) -> None:
    """Holds the lists of a settled configuration, and the policies that need them.

    Args:
        config: the settled configuration.
        scheme_name: the scheme that was asked for.

    Raises:
        UserError: when the lists do not fit together, or SU has none.
    """
    lists, chosen = config.backward_config, config.NEq_config
    try:
        check_lists(lists.manual_weight_idx, lists.weight_update_ratio)
    except ValueError as error:
        raise UserError(str(error)) from None
    policies = {"neuron_selection": chosen.neuron_selection, "initialization": chosen.initialization}
    using = [key for key, policy in policies.items() if policy == "SU"]
    if not using or lists.manual_weight_idx:
        return
    net_name = config.net_config.net_name
    reason = "no scheme is given"
    if scheme_name is not None:
        entry = scheme(scheme_name)
        reason = f"scheme {scheme_name!r} has no lists"
        if entry.network is not None and not at_home(entry, net_name):
            reason = f"scheme {scheme_name!r} belongs to {entry.network} and lends its ratio only"
    raise UserError(
        f"{using[0]} 'SU' needs lists for network {net_name!r}: {reason}; "
        "give one of its own schemes, or manual_weight_idx and weight_update_ratio"
    )
