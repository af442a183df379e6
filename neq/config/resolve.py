"""From what a user gave to what runs: overrides, then the scheme, then the catalog, then the file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass

from pydantic import ValidationError

from neq.config.amounts import spelled_out
from neq.config.budget_rules import check_su, settle_budget
from neq.config.catalog import dataset, dataset_name, network
from neq.config.explain import expected
from neq.config.keys import LEAVES, flatten_config, flatten_file, flatten_overrides, nest
from neq.config.schema import Config, DataProvider
from neq.utils.errors import UserError, shown, unknown_name


@dataclass(frozen=True)
class Resolved:
    """A complete configuration, and the log lines about what gave way on the way to it."""

    config: Config
    notes: tuple[str, ...]


def resolve(file_values: Mapping[str, object], overrides: Mapping[str, object]) -> Resolved:
    """The configuration that a file and overrides come to; resolving its own result changes nothing.

    Args:
        file_values: nested settings as read from a file; sections may be missing or None.
        overrides: parsed values by leaf (`n_epochs`) or path (`run_config.n_epochs`), from flags or a sweep;
            None takes back what the file says.

    Raises:
        UserError: one line for the first mistake.
    """
    given = spelled_out(flatten_overrides(overrides))
    overridden = frozenset(name for name, value in given.items() if value is not None)
    asked = _validated({**spelled_out(flatten_file(file_values)), **given})
    changes, notes = _catalog_changes(asked, overridden)
    budget_changes, budget_notes = settle_budget(asked, overridden)
    config = _validated({**flatten_config(asked), **changes, **budget_changes})
    check_su(config, asked.NEq_config.scheme)
    _check_together(config)
    return Resolved(config, (*notes, *budget_notes, *_redundant_totals(asked, config)))


def _validated(flat: Mapping[str, object]) -> Config:
    """The configuration with these leaves and defaults elsewhere; UserError for the first wrong value."""
    try:
        return Config.model_validate(nest(flat))
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> UserError:
    mistakes = error.errors(include_url=False)
    names = [next(str(part) for part in mistake["loc"] if part in LEAVES) for mistake in mistakes]
    first, leaf = mistakes[0], LEAVES[names[0]]
    others = len(set(names)) - 1
    more = f"; {others} more {'key is' if others == 1 else 'keys are'} wrong" if others else ""
    if first["type"] == "literal_error":
        return UserError(f"{unknown_name(leaf.name, str(first['input']), leaf.choices)}{more}")
    return UserError(
        f"{leaf.name} {shown(first['input'])} is not allowed: {expected(first)} "
        f"({leaf.path}: {leaf.field.description}){more}"
    )


def _catalog_changes(asked: Config, overridden: Set[str]) -> tuple[dict[str, object], list[str]]:
    """What the entries of data set and network set, and the log lines for what gives way to them."""
    data, notes = asked.data_provider, []
    name, root = _dataset_and_root(data, overridden)
    entry = dataset(name)
    classes = data.new_num_classes
    if entry.classes is not None and classes is not None and classes != entry.classes:
        if "new_num_classes" in overridden:
            raise UserError(f"new_num_classes {classes} is not allowed: {name} has {entry.classes} classes")
        notes.append(f"new_num_classes {classes} gives way: {name} has {entry.classes} classes")
    if not asked.net_config.fine_tuning:
        notes.append("fine_tuning false gives way: the head is always replaced")
    net = network(asked.net_config.net_name)
    changes: dict[str, object] = {
        "dataset": name,
        "root": root,
        "new_num_classes": classes if entry.classes is None else entry.classes,
        "image_size": data.image_size or net.input_size,
        "mean_std": data.mean_std or net.mean_std or entry.mean_std,
        "fine_tuning": True,
        "total_num_params": None,
        "glob_num_params": None,
    }
    return changes, notes


def _dataset_and_root(data: DataProvider, overridden: Set[str]) -> tuple[str, str | None]:
    """The data set's canonical name and its root: `npz:FILE` is the data set npz with FILE as its root."""
    kind, colon, file = data.dataset.partition(":")
    if kind != "npz" or not colon:
        return dataset_name(data.dataset), data.root
    if "root" in overridden and data.root not in (None, file):
        raise UserError(f"dataset {shown(data.dataset)} and root {shown(data.root)} name two files; give one")
    return kind, file


def _check_together(config: Config) -> None:
    """Holds the settings that depend on one another; UserError when they do not fit."""
    data, run = config.data_provider, config.run_config
    paths = {"run_dir": config.run_dir, "root": data.root, "weights": config.net_config.weights}
    for name, path in paths.items():
        if path is not None and not _can_be_a_name(path):
            raise UserError(f"{name} {shown(path)} is not allowed: no file or folder can have that name")
    if data.dataset == "image_folder" and not data.root:
        raise UserError("dataset 'image_folder' needs the folder of its images; give it with --root FOLDER")
    if data.dataset == "npz" and not data.root:
        raise UserError("dataset 'npz' needs its file; give it with --dataset npz:FILE")
    neq = config.NEq_config
    if neq.unit == "input_channel" and neq.neuron_selection == "velocity":
        raise UserError(
            "neuron_selection 'velocity' measures output neurons; "
            "with unit 'input_channel' take SU, random or full"
        )
    if run.lr_schedule_name == "multi_step" and isinstance(run.lr_step_size, int):
        raise UserError(
            f"lr_step_size {run.lr_step_size} is not allowed: "
            "lr_schedule_name 'multi_step' needs the list of the epochs of its steps, as [30, 60]"
        )
    if run.lr_schedule_name == "gamma_step" and isinstance(run.lr_step_size, tuple):
        raise UserError(
            f"lr_step_size {shown(list(run.lr_step_size))} is not allowed: "
            "lr_schedule_name 'gamma_step' needs one number, the epochs between steps"
        )


def _can_be_a_name(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _redundant_totals(asked: Config, config: Config) -> list[str]:
    """Log lines for totals in the file that say something else than what is counted."""
    net_name = config.net_config.net_name
    total = network(net_name).total_weights
    settled, given, notes = config.NEq_config, asked.NEq_config, []
    if settled.ratio is not None and settled.ratio > 1:
        notes.append(f"ratio {settled.ratio} is above 1: everything may be updated (30 % is 0.3)")
    if total is None:
        redundant = {"total_num_params": given.total_num_params, "glob_num_params": given.glob_num_params}
        return notes + [
            f"{key} {value} gives way: {net_name} is counted" for key, value in redundant.items() if value
        ]
    if given.total_num_params not in (None, total):
        notes.append(f"total_num_params {given.total_num_params} gives way: {net_name} has {total}")
    if settled.budget_unit != "parameters":
        return notes
    budget = settled.budget if settled.budget is not None else round((settled.ratio or 0) * total)
    # The published code truncates where a ratio is rounded here: one parameter apart is the same budget.
    if given.glob_num_params is not None and abs(given.glob_num_params - budget) > 1:
        notes.append(f"glob_num_params {given.glob_num_params} gives way: the budget is {budget}")
    return notes
