"""Resolves a configuration. Precedence: overrides, scheme, catalog, file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass

from pydantic import ValidationError

from neq.config import compat
from neq.config.budget_rules import check_lists_given, resolve_budget, spelled_out
from neq.config.catalog import PRE_TRAINED, dataset, dataset_name, is_pretrained, network
from neq.config.explain import expected
from neq.config.keys import (
    KEYS,
    PUBLISHED,
    Key,
    config_model,
    find_key,
    flatten_config,
    flatten_file,
    flatten_overrides,
    nest,
)
from neq.config.objectives import OBJECTIVES, Objective
from neq.config.policies import POLICIES, Policy
from neq.config.schema import WEIGHTS_BY_NAME, Config, DataProvider, NetConfig
from neq.utils.errors import UserError, shown, unknown_name


@dataclass(frozen=True)
class Resolved:
    """A complete configuration, and log lines about settings that were replaced or ignored."""

    config: Config
    notes: tuple[str, ...]


def resolve(file_values: Mapping[str, object], overrides: Mapping[str, object]) -> Resolved:
    """The complete configuration of a file and overrides; resolving its own result changes nothing.

    Args:
        file_values: nested settings as read from a file; sections may be missing or None.
        overrides: parsed values by key (`n_epochs`) or path (`run_config.n_epochs`), from flags or a sweep;
            None resets a key of the file to its default.

    Raises:
        UserError: one line about the first mistake.
    """
    given = spelled_out(flatten_overrides(overrides))
    overridden = frozenset(name for name, value in given.items() if value is not None)
    flat = _with_defaults(spelled_out(flatten_file(file_values)), given)
    published = _published({name: flat.pop(name) for name in PUBLISHED if name in flat})
    asked = _validated(flat)
    changes, notes = _catalog_changes(asked, overridden)
    budget_changes, budget_notes = resolve_budget(asked, overridden, published.glob_num_params)
    config = _validated({**flatten_config(asked), **changes, **budget_changes})
    check_lists_given(config, asked.NEq_config.scheme)
    _check_together(config)
    ratio = config.NEq_config.ratio
    if ratio is not None and ratio > 1:
        budget_notes.append(f"ratio {ratio} is above 1: every neuron may be updated (30 % is 0.3)")
    return Resolved(
        config,
        (
            *notes,
            *budget_notes,
            *_random_start(config),
            *_micro_batch_norms(config),
            *compat.notes(published, config),
        ),
    )


def _with_defaults(in_file: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """File and overrides as one, with what objective and policy bring where it is not given beside them.

    A name among the overrides goes before all of the file, one in the file only before what is not given.
    """
    registries: tuple[tuple[str, Mapping[str, Objective | Policy]], ...] = (
        ("objective", OBJECTIVES),
        ("neuron_selection", POLICIES),
    )
    for key, registry in registries:
        is_override = given.get(key) is not None
        beside = given if is_override else {**in_file, **given}
        named = registry.get(str(beside.get(key)))
        brought = {} if named is None else {k: v for k, v in named.defaults.items() if k not in beside}
        if is_override:
            given = {**given, **brought}
        else:
            in_file = {**in_file, **brought}
    return {**in_file, **given}


def stored_config(values: Mapping[str, object]) -> Config:
    """The configuration that a run has recorded, by this version or an earlier one.

    Args:
        values: as read from its config.yaml.

    Raises:
        ValidationError: the values are not a complete configuration that this version knows.
    """
    return config_model().model_validate(compat.without_published_keys(values))


def _validated(flat: Mapping[str, object]) -> Config:
    """The configuration of flat settings, with defaults elsewhere; UserError for the first wrong value."""
    try:
        return config_model().model_validate(nest(flat))
    except ValidationError as error:
        raise _refusal(error) from None


def _published(flat: Mapping[str, object]) -> compat.PublishedKeys:
    given = {name: value for name, value in flat.items() if value is not None}
    try:
        return compat.PublishedKeys.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from None


def _key_at(location: tuple[int | str, ...]) -> Key:
    """The key that a validation error is about; the location is its path, then places inside its value."""
    words = [str(part) for part in location[:2]]
    key = find_key(".".join(words)) or find_key(words[0])
    assert key is not None
    return key


def _refusal(error: ValidationError) -> UserError:
    mistakes = error.errors(include_url=False)
    keys = [_key_at(mistake["loc"]) for mistake in mistakes]
    first, key = mistakes[0], keys[0]
    others = len({key.path for key in keys}) - 1
    more = f"; {others} more {'key is' if others == 1 else 'keys are'} wrong" if others else ""
    if first["type"] == "literal_error":
        return UserError(f"{unknown_name(key.flat_name, str(first['input']), key.choices)}{more}")
    return UserError(
        f"{key.flat_name} {shown(first['input'])} is not allowed: {expected(first)} "
        f"({key.path}: {key.field.description}){more}"
    )


def _catalog_changes(asked: Config, overridden: Set[str]) -> tuple[dict[str, object], list[str]]:
    """The settings filled in from the entries of data set and network, and log lines about replaced ones."""
    data, notes = asked.data_provider, []
    name, root = _dataset_and_root(data, overridden)
    entry = dataset(name)
    views = data.views
    if isinstance(data.prefix_cache, int):
        if views not in (None, data.prefix_cache):
            raise UserError(
                f"prefix_cache {data.prefix_cache} and views {views} are both given; give one of them"
            )
        views = data.prefix_cache
    classes = data.new_num_classes
    if entry.classes is not None and classes is not None and classes != entry.classes:
        if "new_num_classes" in overridden:
            raise UserError(f"new_num_classes {classes} is not allowed: {name} has {entry.classes} classes")
        notes.append(f"ignoring new_num_classes={classes}: {name} has {entry.classes} classes")
    net = network(asked.net_config.net_name)
    changes: dict[str, object] = {
        "dataset": name,
        "root": root,
        "new_num_classes": classes if entry.classes is None else entry.classes,
        "image_size": data.image_size or net.input_size,
        "views": views,
        "mean_std": data.mean_std or net.mean_std or entry.mean_std,
        **_network_of_file(asked.net_config, net.file),
    }
    return changes, notes


def _network_of_file(asked: NetConfig, file: str | None) -> dict[str, object]:
    """A network by the path of its file is recorded as the family's `file`, with the file as its weights."""
    if file is None:
        return {}
    if asked.weights not in ("default", file):
        raise UserError(
            f"net_name {shown(asked.net_name)} and weights {shown(asked.weights)} name two starts; give one"
        )
    return {"net_name": f"{asked.net_name.partition(':')[0]}:file", "weights": file}


def _dataset_and_root(data: DataProvider, overridden: Set[str]) -> tuple[str, str | None]:
    """The data set's canonical name and its root: `npz:FILE` is the data set npz with FILE as its root."""
    kind, colon, file = data.dataset.partition(":")
    if kind != "npz" or not colon:
        return dataset_name(data.dataset), data.root
    if "root" in overridden and data.root not in (None, file):
        raise UserError(f"dataset {shown(data.dataset)} and root {shown(data.root)} name two files; give one")
    return kind, file


def _check_together(config: Config) -> None:
    """Checks settings that depend on one another; UserError when they contradict."""
    data, run = config.data_provider, config.run_config
    paths = {"run_dir": config.run_dir, "root": data.root, "weights": config.net_config.weights}
    for name, path in paths.items():
        if path is not None and not _can_be_a_name(path):
            raise UserError(f"{name} {shown(path)} is not allowed: no file or folder can have that name")
    if data.dataset == "image_folder" and not data.root:
        raise UserError("dataset 'image_folder' needs the folder of its images; give it with --root FOLDER")
    if data.dataset == "npz" and not data.root:
        raise UserError("dataset 'npz' needs its file; give it with --dataset npz:FILE")
    net = config.net_config
    if net.weights_key is not None and net.weights in WEIGHTS_BY_NAME:
        raise UserError(
            f"weights_key {shown(net.weights_key)} needs a checkpoint; give it with --weights FILE, "
            f"here {net.weights!r}"
        )
    neq = config.NEq_config
    for key, name in (("neuron_selection", neq.neuron_selection), ("initialization", neq.initialization)):
        if neq.unit not in POLICIES[name].units:
            allowed = KEYS[key].choices
            able = (each for each in allowed if neq.unit in POLICIES[each].units)
            raise UserError(
                f"{key} {name!r} does not rank by unit {neq.unit!r}; take unit "
                f"{POLICIES[name].units[0]!r}, or one of {', '.join(able)}"
            )
    _check_what_trains(config)
    _check_targets(config)
    _check_prefix(config)
    if run.base_lr == "auto" and not data.use_validation:
        raise UserError(
            "base_lr 'auto' compares rates on validation images, which use_validation false leaves out; "
            "give a number, or use_validation true"
        )
    if run.patience is not None and not data.use_validation:
        raise UserError(
            f"patience {run.patience} waits for a better validation, which use_validation false leaves out; "
            "leave it out, or use_validation true"
        )
    if run.ema_decay is not None and config.NEq_config.budget_unit == "time":
        raise UserError(
            f"ema_decay {run.ema_decay} is not allowed with a budget in time, which does not count it; leave "
            "it out, or give a budget in another unit"
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


def _check_what_trains(config: Config) -> None:
    """Checks that something of the network trains, or nothing, as the objective asks; else UserError."""
    neq, trains = config.NEq_config, OBJECTIVES[config.objective].trains
    chooses = any(POLICIES[name].chooses for name in (neq.neuron_selection, neq.initialization))
    if trains == (chooses or neq.train_head or neq.norm_mode == "train"):
        return
    settings = (
        f"neuron_selection {neq.neuron_selection!r}, initialization {neq.initialization!r}, train_head "
        f"{str(neq.train_head).lower()} and norm_mode {neq.norm_mode!r}"
    )
    if trains:
        raise UserError(
            f"nothing trains with {settings}; take train_head true, norm_mode 'train' or another "
            "neuron_selection, or an objective that trains nothing, as 'statistics'"
        )
    raise UserError(
        f"objective {config.objective!r} trains nothing, which {settings} would; leave them out, or take "
        "another objective"
    )


def _check_targets(config: Config) -> None:
    """Checks that training targets are set under objectives whose loss has them alone; else UserError."""
    if OBJECTIVES[config.objective].has_targets:
        return
    for key in ("label_smoothing", "class_weights", "mixup", "cutmix"):
        if value := getattr(config.run_config, key):
            raise UserError(
                f"{key} {shown(value)} is not allowed with objective {config.objective!r}, whose loss does "
                "not have it; leave it out, or take objective 'classification'"
            )


def _check_prefix(config: Config) -> None:
    """Checks that maps can be kept where a number of views asks for it; else UserError."""
    data, neq, run = config.data_provider, config.NEq_config, config.run_config
    asked = data.prefix_cache
    if data.prefix_precision != "exact" and not isinstance(asked, int):
        raise UserError(
            f"prefix_precision {data.prefix_precision!r} rounds maps that are kept, under a number of views; "
            f"give --prefix_cache N, here {asked!r}, or leave it out"
        )
    if not isinstance(asked, int):
        return
    moving = [
        name
        for name in (neq.initialization, neq.neuron_selection)
        if POLICIES[name].chooses and (not POLICIES[name].is_static or neq.choose_every is not None)
    ]
    refused = {
        f"norm_mode {neq.norm_mode!r}, whose norms see the batch; take norm_mode 'frozen'": (
            neq.norm_mode != "frozen"
        ),
        "mixup and cutmix, which change the images in every step; leave them out": bool(
            run.mixup or run.cutmix
        ),
        "checkpoint_segments and checkpoint_cuts; leave them out: what is kept is not computed again": (
            run.checkpoint_segments > 1 or bool(run.checkpoint_cuts)
        ),
        f"prefix_precision {data.prefix_precision!r} where {' and '.join(moving)} may choose other layers in "
        "later epochs; take prefix_precision 'exact'": data.prefix_precision != "exact" and bool(moving),
    }
    for reason, applies in refused.items():
        if applies:
            raise UserError(f"prefix_cache {asked} is not allowed with {reason}; or take prefix_cache auto")


def _random_start(config: Config) -> tuple[str, ...]:
    """A note about frozen norms of a network without trained weights: they hold no statistics of images."""
    net = config.net_config
    if config.NEq_config.norm_mode != "frozen" or is_pretrained(net.net_name, net.weights):
        return ()
    return (
        f"norm_mode frozen is for pretrained networks, but {net.net_name} starts at random and may learn "
        f"nothing; take a {PRE_TRAINED}NAME, give --weights FILE, or --norm_mode frontier",
    )


def _micro_batch_norms(config: Config) -> tuple[str, ...]:
    """A note about batch norms that see micro-batches: that is another training than with whole batches."""
    run, batch = config.run_config, config.data_provider.base_batch_size
    if config.NEq_config.norm_mode == "frozen":
        return ("ghost_batch_size has no effect under norm_mode frozen",) if run.ghost_batch_size else ()
    if run.micro_batch_size is None or run.micro_batch_size >= batch or run.ghost_batch_size:
        return ()
    return (
        f"batch norms see the statistics of {run.micro_batch_size} images at a time, which trains otherwise "
        f"than batches of {batch}; --norm_mode frozen is exact, and with --ghost_batch_size the micro-batch "
        "changes nothing",
    )


def _can_be_a_name(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False
