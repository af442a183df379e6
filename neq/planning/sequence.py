"""A sequence of tasks: a network trained on a source, then on one shifted task after another."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from neq.config import OBJECTIVES, POLICIES, Config, Resolved, configs_folder, find_config, read_yaml, resolve
from neq.config.catalog import is_pretrained
from neq.config.flags import default_config
from neq.config.keys import flatten_file, flatten_overrides
from neq.planning.configurations import DECIDED, check_planned, with_policy
from neq.planning.task_limits import TaskLimits, read_task_limits
from neq.utils.errors import UserError, shown, unknown_name

SOURCE = "source"
# Training, validation and test: of the photos of every data set that sequences divide anew.
SHARES = (0.3, 0.2, 0.5)
_KEYS = ("name", "config_file", "common", "source", "tasks", "store_rate", "plan")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# Settings that the sequence decides, and those that all tasks share, so that no photo changes its split.
_REFUSED = ("run_dir", "resume", "train_part")
_SHARED = (
    *("split_shares", "split_of", "validation_percentage", "manual_seed"),
    *("net_name", "weights", "weights_key", "new_num_classes"),
)
# A flag that would make one task of those that the file tells apart.
_OF_TASKS = ("dataset", "root", "corruption", "objective")
Settings = Mapping[str, object]


@dataclass(frozen=True)
class Stage:
    """One run of a sequence: the source, a task, or the unlabelled share of one.

    Args:
        name: of its run's folder.
        task: whose data it trains on.
        settings: those of its own, by key.
        data: the task's settings, by which its data are evaluated.
        trains: whether it is trained; a source may be taken as it is.
    """

    name: str
    task: str
    settings: Settings
    data: Settings
    trains: bool = True


@dataclass(frozen=True)
class TaskSequence:
    """Tasks in order, on which one network is trained.

    Args:
        name: of the sequence.
        config_file: that every run starts from, by name or path.
        common: settings of all runs, by key.
        stages: the source, then the runs of the tasks.
        flags: settings that win over all others, by key.
        store_rate: share of the changed values that each delta checkpoint keeps; None: none are written.
        limits: that every task is planned for; None: runs are as the settings have them.
        names_config: whether `config_file` was named, so that a plan does not change what it sets.
    """

    name: str
    config_file: str
    common: Settings
    stages: tuple[Stage, ...]
    flags: Settings
    store_rate: float | None = None
    limits: TaskLimits | None = None
    names_config: bool = False

    @cached_property
    def base(self) -> Settings:
        """The file that every run starts from."""
        return read_yaml(find_config(self.config_file))

    def is_limited(self, stage: Stage) -> bool:
        """Whether a stage is held within limits: every task is, the source is not."""
        return self.limits is not None and stage.task != SOURCE

    def is_planned(self, stage: Stage) -> bool:
        """Whether a stage runs under a plan: a task that learns from labels."""
        return self.is_limited(stage) and self.config(stage).config.objective == "classification"

    def planned_settings(self, stage: Stage, weights: Path | None = None) -> dict[str, object]:
        """The settings that win over the file's in a run that is planned, by key."""
        settings = self._settings(stage.settings, weights)
        return settings if self.names_config else with_policy(self.base, settings)

    def given(self, stage: Stage) -> frozenset[str]:
        """The settings of a stage that its plan does not change."""
        file = flatten_file(self.base) if self.names_config else {}
        return frozenset({*self.common, *self.flags, *stage.settings, *file})

    def config(self, stage: Stage, weights: Path | None = None) -> Resolved:
        """The configuration of a stage's run.

        Args:
            stage: one of `stages`.
            weights: those that it starts from; None: as the settings say.

        Raises:
            UserError: a setting that is unknown or not allowed.
        """
        return self._resolved(stage.settings, weights)

    def data(self, stage: Stage) -> Config:
        """The configuration by which the data of a stage's task are evaluated."""
        return self._resolved({key: value for key, value in stage.data.items() if key != "objective"}).config

    def _resolved(self, settings: Settings, weights: Path | None = None) -> Resolved:
        return resolve(self.base, self._settings(settings, weights))

    def _settings(self, settings: Settings, weights: Path | None = None) -> dict[str, object]:
        start = {} if weights is None else {"weights": str(weights), "weights_key": None}
        return {**_layered(_layered(self.common, settings), self.flags), **start}


def find_sequence(name: str) -> Path:
    """The path of a file, or of a shipped sequence by its name.

    Raises:
        UserError: there is no such sequence.
    """
    if name.endswith((".yaml", ".yml")) or os.path.isfile(name):
        return Path(name)
    shipped = {path.stem: path for path in (configs_folder() / "retraining").glob("*.yaml")}
    if name not in shipped:
        raise unknown_name("sequence", name, shipped, "Give one of these names or the path of a .yaml file.")
    return shipped[name]


def read_sequence(
    path: str | os.PathLike[str],
    flags: Settings | None = None,
    config_file: str | None = None,
    limits: TaskLimits | None = None,
) -> TaskSequence:
    """Reads a file of a sequence; every run's configuration is resolved once, so that all mistakes show.

    Args:
        path: of the YAML file.
        flags: settings that win over the file's, by key.
        config_file: the configuration that runs start from, in place of the file's.
        limits: that tasks are planned for, in place of the file's.

    Raises:
        UserError: one line for the first mistake: file, task, key, what was given, what is allowed.
    """
    given = read_yaml(path)
    try:
        sequence = _sequence(given, Path(path).stem, flags or {}, config_file)
        if limits is not None:
            sequence = replace(sequence, limits=limits)
        for stage in sequence.stages:
            _check(sequence, stage)
    except UserError as error:
        raise UserError(f"file {shown(os.fspath(path))}: {error}") from None
    return sequence


def _sequence(given: Settings, stem: str, flags: Settings, config_file: str | None) -> TaskSequence:
    for key in given:
        if key not in _KEYS:
            raise unknown_name("key", str(key), _KEYS)
    common = {"split_shares": list(SHARES), **_settings(given.get("common"), "common")}
    source = _mapping(given.get("source"), "source")
    trains = source.pop("train", True)
    if not isinstance(trains, bool):
        raise UserError(f"source.train {shown(trains)} is not allowed: true or false is expected")
    of_source = _settings(source, "source", shared=_SHARED)
    tasks = given.get("tasks")
    if not isinstance(tasks, Sequence) or isinstance(tasks, str) or not tasks:
        raise UserError(f"tasks {shown(tasks)} is not allowed: a list of at least one task is expected")
    stages = [Stage(SOURCE, SOURCE, of_source, of_source, trains)]
    for number, task in enumerate(tasks, 1):
        stages += _task(_mapping(task, f"task {number}"), number, common)
    _check_flags(flags, stages)
    file = config_file or given.get("config_file") or default_config({**common, **of_source, **flags})
    if not isinstance(file, str):
        raise UserError(f"config_file {shown(file)} is not allowed: a name or a path is expected")
    name, rate = given.get("name"), _share(given.get("store_rate"), "store_rate", most=1)
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise UserError(f"name {shown(name)} is not allowed: letters, digits and . _ + - are expected")
    numbered = tuple(replace(stage, name=f"{at:02}_{stage.name}") for at, stage in enumerate(stages))
    limits, is_named = read_task_limits(given.get("plan")), bool(config_file or given.get("config_file"))
    return TaskSequence(name or stem, file, common, numbered, flags, rate, limits, is_named)


def _task(given: dict[str, object], number: int, common: Settings) -> list[Stage]:
    """The stages of a task: one, or where a share is labelled two."""
    name, labelled = given.pop("name", None), given.pop("labelled", None)
    unlabelled = given.pop("unlabelled", None)
    here = f"task {shown(name)}" if name is not None else f"task {number}"
    settings = _settings(given, here, shared=_SHARED)
    if name is None:
        name = _default_name({**common, **settings})
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == SOURCE:
        raise UserError(
            f"name {shown(name)} of task {number} is not allowed: letters, digits and . _ + - are expected, "
            f"not {SOURCE!r}"
        )
    share = _share(labelled, f"{here}: labelled")
    if share is None:
        if unlabelled is not None:
            raise UserError(f"{here}: unlabelled needs labelled, the share before it, as labelled: .3")
        return [Stage(name, name, settings, settings)]
    if "objective" in settings:
        raise UserError(f"{here}: labelled and objective contradict; write unlabelled: {{objective: tent}}")
    own = {
        "objective": "tent",
        **_settings(unlabelled, f"{here}: unlabelled", shared=(*_SHARED, *_OF_TASKS[:3])),
    }
    return [
        Stage(name, name, {**settings, "train_part": [0, share]}, settings),
        Stage(f"{name}_unlabelled", name, {**_layered(settings, own), "train_part": [share, 1]}, settings),
    ]


def _default_name(settings: Settings) -> str:
    """The corruption, else the folder or file of the images, else the data set."""
    if settings.get("corruption"):
        return str(settings["corruption"]).replace(":", "-")
    if settings.get("root"):
        return Path(str(settings["root"])).stem
    return Path(str(settings.get("dataset", "digits")).removeprefix("npz:")).stem


def _check(sequence: TaskSequence, stage: Stage) -> None:
    """Resolves the run's configuration; checks what the sequence needs beyond it."""
    tasks = [each.name.partition("_")[2] for each in sequence.stages]
    name = stage.name.partition("_")[2]
    if tasks.count(name) > 1:
        raise UserError(f"two tasks are called {name!r}; give one of them another name, as name: {name}-2")
    try:
        config = sequence.config(stage).config
        sequence.data(stage)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    if sequence.is_planned(stage):
        decided = next((key for key in DECIDED if key in sequence.given(stage)), None)
        if decided is not None:
            raise UserError(f"{name}: {decided} is not allowed with a plan, which decides it; leave it out")
        planned = resolve(sequence.base, sequence.planned_settings(stage)).config
        check_planned(planned, sequence.given(stage))
    net = config.net_config
    if not stage.trains and not is_pretrained(net.net_name, net.weights):
        raise UserError(
            f"source.train false takes the network as it is, but {net.net_name} starts at random; "
            "give weights in common, or train: true"
        )


def _check_flags(flags: Settings, stages: Sequence[Stage]) -> None:
    for name in flags:
        if name in _REFUSED:
            raise UserError(f"--{name} is not allowed: the sequence decides it; leave it out")
        if name in _OF_TASKS and any(name in stage.data for stage in stages):
            raise UserError(f"--{name} would replace that of single tasks; change the file instead")


def _layered(lower: Settings, upper: Settings) -> dict[str, object]:
    """Two layers of settings: what the upper one's objective and policy bring goes before the lower one."""
    objective = OBJECTIVES.get(str(upper.get("objective")))
    brought = dict(objective.defaults) if objective else {}
    policy = POLICIES.get(str({**brought, **upper}.get("neuron_selection")))
    brought |= policy.defaults if policy else {}
    return {**{key: value for key, value in lower.items() if key not in brought}, **upper}


def _mapping(given: Any, where: str) -> dict[str, object]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserError(f"{where} {shown(given)} is not allowed: keys with values are expected")
    return dict(given)


def _settings(given: Any, where: str, shared: Sequence[str] = ()) -> dict[str, object]:
    """Settings by key, without those that the sequence decides or that all tasks share."""
    try:
        flat = flatten_overrides(_mapping(given, where))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    for name in flat:
        if name in _REFUSED:
            raise UserError(f"{where}: {name} is not allowed: the sequence decides it; leave it out")
        if name in shared:
            raise UserError(f"{where}: {name} is the same for all tasks; give it in common")
    return flat


def _share(given: Any, where: str, most: float | None = None) -> float | None:
    """A share above 0 and below 1, or up to 1; none stays none."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not (0 < given < 1 or given == most):
        upto = "up to 1" if most else "below 1"
        raise UserError(f"{where} {shown(given)} is not allowed: a share above 0 and {upto} is expected")
    return float(given)
