"""Runs a sequence of tasks: trains each from the network before it, and evaluates what each one changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from neq.backward.batch_norms import batch_norms
from neq.config import Config, DataProvider
from neq.data import Data
from neq.experiment.network import open_network
from neq.experiment.run import Notes, Stopping, never, no_notes, open_run_data, run_training
from neq.planning.delta import DeltaStore, kept_whole
from neq.planning.limit import hold
from neq.planning.planned_task import Following, Hooks, PlannedTask, plan_path
from neq.planning.sequence import Stage, TaskSequence
from neq.planning.sequence_record import LOCK, SequenceRecord, StageResult, open_record
from neq.planning.task_plan import TaskPlan
from neq.results.best_network import load_best
from neq.runs import load_run
from neq.runs.layout import IDENTITY
from neq.tasks import TaskInputs, task_class
from neq.training import Tracker
from neq.training.evaluation import count
from neq.utils.device import pick_device
from neq.utils.errors import UserError

STORED = "stored"  # the folder of delta checkpoints


def no_tracker(stage: Stage, config: Config) -> AbstractContextManager[Tracker | None]:
    """A `follow` without a tracker."""
    return nullcontext()


def nothing() -> None:
    """A `between` that stays in this process."""


def retrain(
    sequence: TaskSequence,
    out: Path,
    *,
    follow: Following = no_tracker,
    notes: Notes = no_notes,
    stopping: Stopping = never,
    between: Callable[[], None] = nothing,
    since: float | None = None,
) -> SequenceRecord:
    """Trains and evaluates every stage that the folder does not hold yet, in order.

    Args:
        sequence: as read.
        out: folder of the sequence: one folder a run, the record, and delta checkpoints.
        follow: opens a tracker for each run.
        notes: called with each line for the user.
        stopping: as of `run_training`.
        between: under limits, called where what comes next needs a process of its own: memory that a process
            has taken counts. It may replace the process by one that makes the same call.
        since: when the deadline of the next task began, by time.monotonic; None: now.

    Raises:
        UserError: a mistake in the sequence, data that are missing or have other classes, or a folder that
            holds something else: nothing is written; or limits that a task does not keep.
        Others: as of `run_training`; the same call continues.
    """
    record = open_record(sequence, out)
    if len(record.stages) == len(sequence.stages):
        return record
    _check_data(sequence, out)
    with _locked(out):
        record = open_record(sequence, out)  # another process may have added to it
        record.write()
        hooks = Hooks(follow, notes, stopping, between)
        for number in range(len(record.stages), len(sequence.stages)):
            began = time.monotonic() if since is None else since
            config = _trained(sequence, number, out, began, hooks)
            _evaluate(sequence, record, number, config)
            record.write()
            since = None
            if sequence.limits is not None and number + 1 < len(sequence.stages):
                between()
    return record


def _check_data(sequence: TaskSequence, out: Path) -> None:
    """Opens the data of every stage once: whether they are there, can be split, and have the same classes."""
    classes: tuple[str, ...] = ()
    for stage in sequence.stages:
        config = sequence.config(stage).config
        root = config.data_provider.root
        try:
            with _opened(config, config.data_provider) as data:
                classes = classes or data.classes
                if data.classes != classes:
                    raise UserError(
                        f"its classes are {_listed(data.classes)}, those of the source {_listed(classes)}; "
                        "all tasks need the same, in the same order"
                    )
                of_files = data.fingerprint is not None and root is not None
                if of_files and out.resolve().is_relative_to(Path(str(root)).expanduser().resolve()):
                    raise UserError(f"--out {out} lies inside the images of root {root}; give another")
        except UserError as error:
            raise UserError(f"{stage.name.partition('_')[2]}: {error}") from None


def _listed(classes: tuple[str, ...]) -> str:
    return f"{len(classes)} ({', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''})"


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Creates the folder and keeps other processes out of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout:
        raise UserError(f"another process is retraining in {out}; wait for it to end") from None


def _trained(sequence: TaskSequence, number: int, out: Path, since: float, hooks: Hooks) -> Config:
    """Trains a stage, or resumes it, from the best weights of the stage before; returns its configuration."""
    stage, notes = sequence.stages[number], hooks.notes
    before = sequence.stages[number - 1] if number else None
    weights = load_run(out / before.name).best_weights.resolve() if before and before.trains else None
    resolved = sequence.config(stage, weights)
    if not stage.trains:
        return resolved.config
    notes(f"{stage.name}: {number + 1} of {len(sequence.stages)}")
    for line in resolved.notes:
        notes(line)
    if sequence.is_planned(stage):
        return PlannedTask(sequence, number, weights, out, since, hooks).train()
    folder = out / stage.name
    config = resolved.config.model_copy(
        update={"run_dir": str(folder), "resume": (folder / IDENTITY).exists()}
    )
    limits = sequence.limits.limits if sequence.limits and sequence.is_limited(stage) else None
    with hooks.follow(stage, config) as tracker:
        trackers = () if tracker is None else (tracker,)
        if limits is None:
            run_training(config, trackers=trackers, notes=notes, stopping=hooks.stopping)
        else:
            hold(config, limits, trackers, notes, hooks.stopping)
    return config


def _evaluate(sequence: TaskSequence, record: SequenceRecord, number: int, config: Config) -> None:
    """Adds a stage's result to the record: accuracies on all tasks so far, and what it takes to store it."""
    stage, out = sequence.stages[number], record.folder
    so_far = {each.task: each for each in sequence.stages[: number + 1]}
    network = _network(sequence, number, out)
    top1 = {task: top1_on(network, config, sequence.data(each)) for task, each in so_far.items()}
    if stage.task not in record.source:
        _compare(sequence, record, stage)
    stored = None
    if sequence.store_rate is not None:
        store = DeltaStore(out / STORED)
        path = store.add(number, network.state_dict(), sequence.store_rate, kept_whole(network))
        state = store.state()
        network.load_state_dict(state)
        stored = {
            "file": path.relative_to(out).as_posix(),
            "bytes": path.stat().st_size,
            "top1": top1_on(network, config, sequence.data(stage)),
        }
    online = None
    if stage.trains and config.objective != "classification":
        online = load_run(out / stage.name).metrics[0]["train"]["train/top1"]
    objective = config.objective if stage.trains else ""
    path = plan_path(out, stage)
    plans: list[Mapping[str, Any]] = []
    if sequence.is_planned(stage):
        plans += TaskPlan.read(path).ran()
    record.stages.append(StageResult(stage.name, stage.task, objective, top1, online, stored, plans))


def _compare(sequence: TaskSequence, record: SequenceRecord, stage: Stage) -> None:
    """Adds the accuracies of the source's network on a task, by running and by test batches' statistics."""
    network, data = _network(sequence, 0, record.folder), sequence.data(stage)
    source = sequence.data(sequence.stages[0])
    record.source[stage.task] = top1_on(network, source, data)
    if batch_norms(network):
        together = {"micro_batch_size": None, "ghost_batch_size": None}
        statistics = source.model_copy(
            update={
                "objective": "statistics",
                "run_config": source.run_config.model_copy(update=together),
                "NEq_config": source.NEq_config.model_copy(update={"norm_mode": "frontier"}),
            }
        )
        record.statistics[stage.task] = top1_on(network, statistics, data)


def _network(sequence: TaskSequence, number: int, out: Path) -> nn.Module:
    """The network after a stage, on the CPU in eval mode."""
    stage = sequence.stages[number]
    if stage.trains:
        return load_best(out / stage.name).network
    config = sequence.config(stage).config
    with _opened(config, config.data_provider) as data:
        return open_network(config, len(data.classes))[0].eval()


def top1_on(network: nn.Module, config: Config, of: Config) -> float:
    """Top-1 of a network on the test photos of a task, in per cent.

    Args:
        network: moved to the device.
        config: says how the network is evaluated.
        of: says on what.
    """
    images = of.data_provider
    if images.cache != "disk":  # each image is read once
        images = images.model_copy(update={"cache": "none"})
    config = config.model_copy(update={"data_provider": images})
    device = pick_device(config.device)
    network.to(device).to(memory_format=torch.channels_last)
    with ExitStack() as closed:

        def open_set(settings: DataProvider) -> Data:
            return closed.enter_context(_opened(config, settings))

        inputs = TaskInputs(config, open_set(images), device, network, open_set, no_notes)
        task = task_class(config.objective).of_run(inputs)
        return task.scores(count(network, task, "test", config.run_config.precision))["top1"]


def _opened(config: Config, settings: DataProvider) -> Data:
    return open_run_data(settings, config.manual_seed, pick_device(config.device), 0, 1)
