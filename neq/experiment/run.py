"""A run from its resolved configuration to its folder: trained, resumed, or described without training.

Nothing here prints or handles signals: lines for a user go to a callable, progress goes to trackers, and
whoever owns the process decides what a signal does (`stopping`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import RenderableType

from neq.config import Config, DataProvider, dataset, in_wandb_sweep, read_yaml, to_yaml, wandb_values
from neq.data import Data, open_data
from neq.experiment.dry_run import describe
from neq.experiment.memory_report import memory_explained
from neq.experiment.network import open_network, unselectable
from neq.experiment.rendezvous import follow, lead
from neq.networks.recipe import named_recipe, write_recipe
from neq.runs import (
    RecordHeader,
    RunRecord,
    Stretch,
    SweepCell,
    TensorBoardMirror,
    WandbMirror,
    check_tensorboard,
    current_environment,
    fingerprint,
    identity,
    run_folder,
    wandb_cell,
    why_no_wandb,
)
from neq.runs.layout import CONFIG
from neq.tasks import TaskInputs, task_of_run
from neq.training import Checkpoints, Progress, Stop, Stopped, Tracker, Training, restore, train
from neq.training.distributed.process_group import process_group
from neq.utils.device import pick_device
from neq.utils.errors import UserError
from neq.utils.exit_codes import Terminated
from neq.utils.malloc import give_back_at_once

RUNS = Path("runs")
Notes = Callable[[str], None]
OpenData = Callable[..., AbstractContextManager[Data]]
Stopping = Callable[[], AbstractContextManager[Stop]]


@dataclass(frozen=True)
class StepSettings:
    """Settings under which a run takes its steps from here on, in place of its own; recorded by epoch.

    Args:
        config: resolved; it differs from the run's in `changed` alone, none of which concerns its images or
            the length of its schedule.
        changed: settings by key.
        identity: what decides over them, by name: beside its own settings it identifies the run.
    """

    config: Config
    changed: Mapping[str, Any]
    identity: Mapping[str, Any]


class StopEarly(BaseException):
    """Raised by a tracker to end a run after an epoch; another call with `resume` continues it.

    Like KeyboardInterrupt it is no Exception: the run did not fail.
    """


def no_notes(line: str) -> None:
    """Drops a line for the user."""


def open_run_data(settings: DataProvider, seed: int, device: torch.device, rank: int, processes: int) -> Data:
    """Opens the data of a run, as `open_data` does, by the catalog's entry."""
    return open_data(settings, dataset(settings.dataset), seed, device, rank, processes)


def never() -> AbstractContextManager[Stop]:
    """A `stopping` under which nothing stops the training."""
    return nullcontext(Stop())


def run_training(
    config: Config,
    *,
    runs: Path = RUNS,
    overwrite: bool = False,
    trackers: Sequence[Tracker] = (),
    notes: Notes = no_notes,
    opened: OpenData = open_run_data,
    stopping: Stopping = never,
    checks: Sequence[Callable[[], None]] = (),
    cell: SweepCell | None = None,
    under: StepSettings | None = None,
) -> Path:
    """Trains a run or resumes it; a run that is finished already is left as it is.

    Args:
        config: resolved.
        runs: folder of all runs, where `run_dir` names none.
        overwrite: whether to train again in a folder that holds a run.
        trackers: follow the run beside its record; called in the first process alone.
        notes: called with each line for the user.
        opened: opens the data, as `open_run_data` does.
        stopping: a context around the training whose Stop asks it to stop, such as `stop_on_signals`.
        checks: called between passes that are no steps (`Training.checks`).
        cell: of the sweep that asks for the run, to be recorded; by default that of W&B's agent, if any.
        under: the settings of the steps from here on, in one process; None: those of `config`. A call with
            others continues the same run under them.

    Returns:
        The folder of the run; the run is unfinished where a tracker raised StopEarly.

    Raises:
        UserError: a mistake in the configuration, or a run folder that cannot be used; nothing is written.
        TrainingDiverged: the loss is not finite; the last checkpoint is kept.
        OutOfMemory: memory ran out; the last checkpoint is kept.
        KeyboardInterrupt, Terminated: `stopping` asked to stop; the run is saved where it stood.
        OSError: the folder can no longer be written; what was saved before is kept.
    """
    if (config if under is None else under.config).memory == "tight":
        give_back_at_once()
    with open_run(config, runs, notes, opened, under) as (run, record):
        run = replace(run, trackers=trackers, checks=checks)
        if run.processes.is_first:
            with suppress(StopEarly):
                _lead(run, record, _Asked(config, under, overwrite, cell or wandb_cell()), notes, stopping)
        else:
            _follow(run, record, stopping)
        return record.folder


def dry_run(config: Config, *, runs: Path = RUNS, notes: Notes = no_notes) -> list[RenderableType]:
    """What a run would do: its configuration, cost, memory and first epoch; nothing is written.

    Args:
        config, runs, notes: as of `run_training`.

    Raises:
        UserError: a mistake in the configuration.
    """
    with open_run(config, runs, notes, open_run_data) as (run, record):
        return describe(run, record, identity(config, run.fingerprint))


@contextmanager
def open_run(
    config: Config, runs: Path, notes: Notes, opened: OpenData, under: StepSettings | None = None
) -> Iterator[tuple[Training, RunRecord]]:
    """Opens the data and builds the network of a run; writes nothing."""
    own, config = config, config if under is None else under.config
    with process_group() as processes, ExitStack() as closed:
        device = pick_device(config.device, processes.local_rank, processes.local_count)
        sets: list[Data] = []

        def open_set(settings: DataProvider) -> Data:
            opening = opened(settings, config.manual_seed, device, processes.rank, processes.count)
            sets.append(closed.enter_context(opening))
            for line in sets[-1].notes:
                notes(line)
            return sets[-1]

        with processes.first_alone("data"):
            data = open_set(config.data_provider)
        named = run_folder(own, data.fingerprint)
        _folder(own, data.fingerprint, runs / named)  # refused before a network is downloaded or built
        with processes.first_alone("network"):
            network, table = open_network(config, len(data.classes))
            network.to(device).to(memory_format=torch.channels_last)
            inputs = TaskInputs(config, data, device, network, open_set, notes)
            task = task_of_run(inputs)
            found = fingerprint([each.fingerprint for each in sets])
            if found != data.fingerprint:
                named = run_folder(own, found)
            record = RunRecord(_folder(own, found, runs / named))
            checkpoints = Checkpoints(record.checkpoints, writes=processes.is_first, run=str(named))
            run = Training(
                config, network, table, data, task, device, checkpoints,
                processes=processes, fingerprint=found,
            )  # fmt: skip
            run.check_step()
            if config.NEq_config.budget_unit != "time":
                _check_policies(run)
        if table.unselectable:
            notes(f"not selectable, stays frozen: {unselectable(network, table)}")
        yield run, record


def _check_policies(run: Training) -> None:
    for policy in (run.policy(0), run.main_policy):
        run.check(policy)


def _check_times(run: Training, fresh: bool, notes: Notes) -> None:
    """Checks a budget in time by the device; a run with a checkpoint was checked by the times in it."""
    if run.config.NEq_config.budget_unit == "time" and (fresh or run.checkpoints.is_empty):
        notes("budget in time: training steps are measured on this device, unless they were before")
        _check_policies(run)


def _folder(config: Config, images: str | None, own: Path) -> Path:
    """The folder of a run, by default its own; not among its images: it would change their fingerprint."""
    folder = Path(config.run_dir).expanduser() if config.run_dir else own
    root = config.data_provider.root
    of_files = images is not None and root is not None
    if of_files and folder.resolve().is_relative_to(Path(str(root)).expanduser().resolve()):
        raise UserError(f"run_dir {folder} lies inside the images of root {root}; give another --run-dir")
    return folder


@dataclass(frozen=True)
class _Asked:
    """What a call asks for.

    Args:
        config, under, overwrite, cell: as of `run_training`.
    """

    config: Config
    under: StepSettings | None
    overwrite: bool
    cell: SweepCell | None

    def identity(self, run: Training) -> dict[str, object]:
        """What identifies the run."""
        named = identity(self.config, run.fingerprint)
        return named if self.under is None else {**named, **self.under.identity}

    def stretch(self, run: Training, epoch: int = 0, step: int = 0) -> Stretch:
        """The part of the run that begins at an epoch and step."""
        environment = current_environment(run.device, run.processes.count)
        return Stretch(environment, epoch, step, {} if self.under is None else dict(self.under.changed))


def _lead(run: Training, record: RunRecord, asked: _Asked, notes: Notes, stopping: Stopping) -> None:
    """Trains in the first process, which alone writes the run's folder."""
    config, folder, overwrite, cell = asked.config, record.folder, asked.overwrite, asked.cell
    named = asked.identity(run)
    if config.tensorboard:
        check_tensorboard()
    record.check(named, config.resume, overwrite)
    if record.is_finished() and not overwrite:
        lead(run, None)
        if cell is not None:
            record.asked_by(cell)
        if config.tensorboard:
            with record.locked(), TensorBoardMirror(folder):
                pass
        notes(f"{folder} holds this run, finished; --overwrite trains it again")
        if in_wandb_sweep():  # this cell is another run there
            with _wandb(config, record, notes):
                pass
        return
    _check_times(run, overwrite, notes)
    with record.locked(), _write_errors_explained(folder):
        record.check(named, config.resume, overwrite)
        progress = _start_or_resume(run, record, asked, notes)
        lead(run, progress)
        with (
            stopping() as stop,
            _wandb(config, record, notes) as wandb,
            TensorBoardMirror(folder) if config.tensorboard else nullcontext() as tensorboard,
            _stop_explained(),
            memory_explained(run),
        ):
            mirrors = [each for each in (wandb, tensorboard) if each is not None]
            train(replace(run, trackers=(record, *run.trackers, *mirrors), stop=stop, notes=notes), progress)


def _start_or_resume(run: Training, record: RunRecord, asked: _Asked, notes: Notes) -> Progress:
    """Restores the last checkpoint, or begins the record where there is none."""
    fresh, cell = asked.overwrite, asked.cell
    found = None if fresh else run.checkpoints.load_last(notes)
    with memory_explained(run):
        progress = restore(run, found)
    progress.take_settings(asked.stretch(run).settings)
    if found is not None:
        state, whole = progress.epoch_state, run.task.steps_per_epoch
        stretch = asked.stretch(run, progress.epoch, 0 if state is None else state.step)
        changed = record.resume(stretch, cell)
        steps = "" if state is None else f" and {state.step} of {whole} steps"
        notes(f"resumed after {progress.epoch} epochs{steps}")
        if changed:
            notes(f"resumed in another environment, which may change the result: {changed}")
        return progress
    if not fresh:
        record.check_unstarted()
    if asked.config.resume and not in_wandb_sweep():
        notes(f"nothing to resume in {record.folder}: starts from the beginning")
    # Where and how the run was started is not what it is: the record repeats it anywhere.
    config = asked.config.model_copy(update={"run_dir": None, "resume": False})
    header = RecordHeader(stretches=(asked.stretch(run),), sweeps=() if cell is None else (cell,))
    record.start(to_yaml(config), asked.identity(run), run.table, run.data.classes, header)
    recipe = named_recipe(config.net_config.net_name, run.network, len(run.data.classes))
    write_recipe(record.folder, recipe)
    return progress


def _follow(run: Training, record: RunRecord, stopping: Stopping) -> None:
    """Trains beside the first process; reads the run's folder and writes nothing."""
    with memory_explained(run):
        progress = follow(run, record)
    if progress is not None:
        with stopping() as stop, _stop_explained(), memory_explained(run):
            train(replace(run, trackers=(), stop=stop), progress)


@contextmanager
def _stop_explained() -> Iterator[None]:
    """Raises what the signal that stopped a training would have raised, once it is saved."""
    try:
        yield
    except Stopped as error:
        kind = KeyboardInterrupt if error.number == signal.SIGINT else Terminated
        raise kind("stopped and saved; run the same command again with --resume to continue") from None


@contextmanager
def _write_errors_explained(folder: Path) -> Iterator[None]:
    """Adds to an error of writing in the run's folder what is kept and how to continue."""
    try:
        yield
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(folder):
            raise
        raise OSError(
            f"{error.filename} cannot be written ({error.strerror}); what was saved before is kept: make "
            "room or make the folder writable, then run the same command again with --resume to continue"
        ) from error


@contextmanager
def _wandb(config: Config, record: RunRecord, notes: Notes) -> Iterator[WandbMirror | None]:
    """The mirror of the run on W&B; none where W&B is not available."""
    missing = why_no_wandb()
    if missing is not None:
        if missing:
            notes(f"{missing}; the run keeps its own record alone")
        yield None
        return
    # The values that the sweep asked for stay beside what they resolve to: W&B's search compares the former.
    values = {**wandb_values(), **read_yaml(record.folder / CONFIG)}
    with WandbMirror(record.folder, values, config.project_name, notes) as mirror:
        yield mirror
