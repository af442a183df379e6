"""One run, from its resolved configuration to its table."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from neq.cli.progress import ProgressDisplay
from neq.config import Config, Options, Resolved, dataset, in_wandb_sweep, read_yaml, to_yaml, wandb_values
from neq.data import Data, open_data
from neq.experiment.dry_run import describe
from neq.experiment.memory_report import memory_explained
from neq.experiment.network import open_network, unselectable
from neq.experiment.rendezvous import follow, lead, nothing_to_train
from neq.results import plot_curves, plot_selection, summary_table
from neq.runs import (
    RecordHeader,
    RunRecord,
    Stretch,
    SweepCell,
    WandbMirror,
    current_environment,
    identity,
    read_metrics,
    read_summary,
    run_folder,
    why_no_wandb,
)
from neq.runs.layout import CONFIG, CURVES, SELECTION_PICTURE
from neq.tasks import Classification
from neq.training import (
    Checkpoints,
    Stopped,
    Tracker,
    Training,
    restore,
    stop_on_signals,
    total_epochs,
    train,
)
from neq.training.distributed import ProcessGroup
from neq.training.distributed.process_group import joined
from neq.utils.console import Console
from neq.utils.device import pick_device
from neq.utils.errors import UserError
from neq.utils.exit_codes import Terminated


@dataclass(frozen=True)
class Surroundings:
    """What is around a run and no part of it.

    Args:
        runs: folder of all runs, where `run_dir` names none.
        opened: opens the data, as `open_data` does.
        trackers: told beside the run's record, display and mirror.
        cell: of the sweep that asks for the run.
    """

    runs: Path = Path("runs")
    opened: Callable[..., AbstractContextManager[Data]] = open_data
    trackers: Sequence[Tracker] = ()
    cell: SweepCell | None = None


ORDINARY = Surroundings()


def run_training(options: Options, resolved: Resolved, around: Surroundings = ORDINARY) -> Path:
    """Trains a run, or goes on with it, or shows what it reached when it was trained before.

    Args:
        options: the command line's switches.
        resolved: the run.
        around: where it is trained.

    Returns:
        The folder of the run.

    Raises:
        UserError: a mistake in the configuration, or a run folder that cannot be used; nothing is written.
    """
    with joined() as processes:
        return _run(options, resolved, around, processes)


def _run(options: Options, resolved: Resolved, around: Surroundings, processes: ProcessGroup) -> Path:
    console, config = Console(), resolved.config
    device = pick_device(config.device, processes.local_rank, processes.local_count)
    entry = dataset(config.data_provider.dataset)
    share = (processes.rank, processes.count)
    with processes.first_alone("data"):
        opened = around.opened(config.data_provider, entry, config.manual_seed, device, *share)
    with opened as data:
        _notes(console, resolved.notes + data.notes)
        folder = _folder(config, data, around.runs)
        record = RunRecord(folder)
        with processes.first_alone("network"):
            run = prepare(config, data, device, record, processes)
        if run.table.unselectable:
            _notes(console, [f"not selectable, stays frozen: {unselectable(run.network, run.table)}"])
        named = identity(config, data.fingerprint)
        if options.dry_run:
            describe(console, run, record, named)
            return folder
        if not processes.is_first:
            _follow(run, record)
            return folder
        record.check(named, config.resume, options.overwrite)
        if record.is_finished() and not options.overwrite:
            nothing_to_train(run)
            if around.cell is not None:
                record.asked_by(around.cell)
            _notes(console, [f"{folder} holds this run, finished; --overwrite trains it again"])
            if in_wandb_sweep():  # this cell is another run there
                with _mirror(console, config, record):
                    pass
        else:
            with record.locked(), _unwritable(folder):
                record.check(named, config.resume, options.overwrite)
                followed = replace(run, trackers=around.trackers)
                _train(console, followed, record, options.overwrite, around.cell)
    _draw(console, record)
    console.print(summary_table(read_summary(folder)))
    console.print(f"{folder}", highlight=False, markup=False)
    return folder


def prepare(
    config: Config, data: Data, device: torch.device, record: RunRecord, processes: ProcessGroup
) -> Training:
    """Builds the network and its table, and checks that the policies fit them; writes nothing.

    Raises:
        UserError: a network that cannot be had, or a scheme that does not fit it or the budget.
    """
    network, table = open_network(config, len(data.classes))
    network.to(device).to(memory_format=torch.channels_last)
    checkpoints = Checkpoints(record.checkpoints, writes=processes.is_first)
    run = Training(
        config, network, table, data, Classification(data, device), device, checkpoints, processes=processes
    )
    for policy in (run.policy(0), run.main_policy):
        run.check(policy)
    return run


def _folder(config: Config, data: Data, runs: Path) -> Path:
    """Where the run goes; not into its own images, which it would change."""
    if config.run_dir:
        folder = Path(config.run_dir).expanduser()
    else:
        folder = runs / run_folder(config, data.fingerprint)
    root = config.data_provider.root
    of_files = data.fingerprint is not None and root is not None
    if of_files and folder.resolve().is_relative_to(Path(str(root)).expanduser().resolve()):
        raise UserError(f"run_dir {folder} lies inside the images of root {root}; give another --run-dir")
    return folder


def _train(console: Console, run: Training, record: RunRecord, fresh: bool, cell: SweepCell | None) -> None:
    """Trains, from the last checkpoint where there is one.

    Raises:
        KeyboardInterrupt, Terminated: a signal stopped it; it is saved where it stood.
        OSError: the folder can no longer be written; what was saved before is kept.
    """

    def tell(line: str) -> None:
        _notes(console, [line])

    found = None if fresh else run.checkpoints.load_last(tell)
    with memory_explained(run):
        progress = restore(run, found)
    environment = current_environment(run.device, run.processes.count)
    if found is not None:
        state, whole = progress.epoch_state, run.task.steps_per_epoch
        stretch = Stretch(environment, progress.epoch, 0 if state is None else state.step)
        changed = record.resume(stretch, cell)
        steps = "" if state is None else f" and {state.step} of {whole} steps"
        tell(f"resumed after {progress.epoch} epochs{steps}")
        if changed:
            tell(f"resumed in another environment, which may change the result: {changed}")
    else:
        if not fresh:
            record.check_unstarted()
        if run.config.resume and not in_wandb_sweep():
            tell(f"nothing to resume in {record.folder}: starts from the beginning")
        # Where and how the run was started is not what it is: the record repeats it anywhere.
        config = run.config.model_copy(update={"run_dir": None, "resume": False})
        named = identity(config, run.data.fingerprint)
        header = RecordHeader(stretches=(Stretch(environment),), sweeps=() if cell is None else (cell,))
        record.start(to_yaml(config), named, run.table, run.data.classes, header)
    lead(run, progress)
    epochs = total_epochs(run.config.run_config)
    with (
        stop_on_signals() as stop,
        _mirror(console, run.config, record) as mirror,
        ProgressDisplay(console, epochs) as display,
        _stop_explained(),
        memory_explained(run),
    ):
        train(replace(run, trackers=(record, display, *mirror, *run.trackers), stop=stop), progress)


@contextmanager
def _stop_explained() -> Iterator[None]:
    """A run that was asked to stop ends as its signal does."""
    try:
        yield
    except Stopped as error:
        kind = KeyboardInterrupt if error.number == signal.SIGINT else Terminated
        raise kind("stopped and saved; the same command with --resume goes on from there") from None


@contextmanager
def _unwritable(folder: Path) -> Iterator[None]:
    """Says what to do when the run's folder can no longer be written."""
    try:
        yield
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(folder):
            raise
        raise OSError(
            f"{error.filename} cannot be written ({error.strerror}); what was saved before is kept: "
            "make room, or the folder writable, and the same command with --resume goes on"
        ) from error


def _follow(run: Training, record: RunRecord) -> None:
    """Trains beside the first process, which alone writes the run's folder."""
    with memory_explained(run):
        progress = follow(run, record)
    if progress is not None:
        with stop_on_signals() as stop, _stop_explained(), memory_explained(run):
            train(replace(run, stop=stop), progress)


@contextmanager
def _mirror(console: Console, config: Config, record: RunRecord) -> Iterator[Sequence[WandbMirror]]:
    """The mirror of the run on W&B, or none where W&B is not to be had."""

    def tell(line: str) -> None:
        _notes(console, [line])

    missing = why_no_wandb()
    if missing is not None:
        if missing:
            tell(f"{missing}; the run keeps its own record alone")
        yield ()
        return
    # What the sweep asked for stays beside what it came to: W&B's search compares the former.
    values = {**wandb_values(), **read_yaml(record.folder / CONFIG)}
    with WandbMirror(record.folder, values, config.project_name, tell) as mirror:
        yield (mirror,)


def _draw(console: Console, record: RunRecord) -> None:
    """Draws the pictures that are not there yet, where they can be."""
    pictures = {CURVES: plot_curves, SELECTION_PICTURE: plot_selection}
    missing = {name: plot for name, plot in pictures.items() if not (record.folder / name).exists()}
    metrics = read_metrics(record.folder) if missing else []
    for name, plot in missing.items():
        try:
            plot(metrics, record.folder / name)
        except OSError as error:
            _notes(console, [f"{name} cannot be written ({error.strerror})"])


def _notes(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(f"neq: {line}", style="dim", highlight=False, markup=False)
