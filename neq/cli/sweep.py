"""`neq sweep`: runs the cells of a sweep file on this machine, alone or with others, without any account."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from rich.live import Live

from neq.cli.cells import base_lines
from neq.cli.parsing import Parser, count
from neq.cli.run_pictures import draw_missing
from neq.cli.sweep_table import best_line, counts, ended_line, failures, overview, silences
from neq.sweeps import read_cells
from neq.sweeps.history import CellState
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.run_sweep import SweepUpdate, run_sweep
from neq.sweeps.storage import FILE, open_storage, patiently, unreachable_refused
from neq.sweeps.worker_pool import WorkerPool, cores
from neq.utils.console import Console
from neq.utils.errors import UserError

MAX_FAILURES = 5


def command(arguments: list[str]) -> int:
    """Runs a sweep, or prints its status; returns the exit code: 1 where cells failed or are left.

    Args:
        arguments: "sweep", then "status" or not, the sweep file, options.
    """
    given = arguments[1:]
    if given[:1] == ["status"]:
        return _status(given[1:])
    options = _parser().parse_args(given)
    (sweep, _), runs = read_cells(options.file, options.config_file), options.runs_dir
    experiment = sweep.experiment()
    name = sweep_name(sweep, options.file.stem, experiment.settings)
    queue = CellQueue(open_storage(options.storage, runs), name, sweep)
    with closing(queue):
        slots = options.workers or min(cores(), queue.size or cores())
        pool = WorkerPool(queue, experiment, options.storage, runs, slots, options.max_failures, draw_missing)
        return _sweep(queue, pool, options)


def _sweep(queue: CellQueue, pool: WorkerPool, options: argparse.Namespace) -> int:
    """Runs the cells; returns the exit code."""
    console = Console(highlight=False)
    console.lines(*_beginning(queue, options.file), *(f"neq: {line}" for line in base_lines(queue.sweep)))
    patiently(queue.begin)
    if options.retry_failed:
        again = patiently(lambda: queue.enqueue(failed=True))
        console.lines(f"neq: {again} failed cell{' waits' if again == 1 else 's wait'} again")
    try:
        states = _run(console, queue, pool, options.workers)
    except BaseException:
        _stop(console, pool)
        raise
    console.lines(counts(queue, states), *best_line(queue, states), *failures(states))
    left = [state for state in states if state.state not in ("done", "stopped")]
    if any(state.state == "failed" for state in left):
        console.lines("neq: --retry-failed runs failed cells again")
    return 1 if left else 0


def _parser() -> Parser:
    parser = Parser(
        prog="neq sweep",
        usage="neq sweep FILE [options]\n       neq sweep status FILE [options]",
        description="Run the cells of a sweep file (W&B's own format) on this machine. Run the same command "
        "again to continue, or to share the cells with one that runs already. status shows the progress.",
    )
    _add_places(parser)
    parser.add_workers()
    parser.add_argument("--retry-failed", action="store_true", help="run the failed cells again")
    parser.add_argument(
        "--max-failures", type=count, default=MAX_FAILURES, metavar="K",
        help=f"a worker stops after K failures in a row (default: {MAX_FAILURES})",
    )  # fmt: skip
    return parser


def _add_places(parser: Parser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="as policies/digits/velocity.yaml")
    parser.add_storage()
    parser.add_config_file()
    parser.add_runs_dir()


def _status(given: list[str]) -> int:
    parser = Parser(prog="neq sweep status", description="Show the progress of a sweep.")
    _add_places(parser)
    options = parser.parse_args(given)
    (sweep, _), runs = read_cells(options.file, options.config_file), options.runs_dir
    name = sweep_name(sweep, options.file.stem, sweep.experiment().settings)
    if options.storage is None and not (runs / FILE).exists():
        raise UserError(
            f"{runs / FILE} does not exist: no sweep was started; neq sweep {options.file} starts it"
        )
    queue = CellQueue(open_storage(options.storage, runs, reading=True), name, sweep)
    with closing(queue), unreachable_refused():
        return _print_status(queue, options.file)


def _print_status(queue: CellQueue, file: Path) -> int:
    if not queue.exists():
        raise UserError(f"{file} was not started, or was edited since; neq sweep {file} starts it")
    console, states = Console(), queue.states()
    console.print(overview(queue, states, 0), highlight=False)
    console.lines(*silences(states, queue.silence()), *failures(states))
    return 0


def _beginning(queue: CellQueue, file: Path) -> list[str]:
    """Lines about the sweep before it starts or continues."""
    label = queue.name.rpartition("-")[0]
    names = patiently(queue.names)
    if queue.name in names:
        return [f"neq: continuing sweep {queue.name}"]
    others = [name for name in names if name.rpartition("-")[0] == label]
    if not others:
        return [f"neq: starting sweep {queue.name}"]
    return [
        f"neq: starting sweep {queue.name}: {file} was edited since {others[-1]}",
        "neq: runs that are in both sweeps are not trained again",
    ]


def _run(console: Console, queue: CellQueue, pool: WorkerPool, workers: int | None) -> Sequence[CellState]:
    """Runs the cells and prints those that end; returns the final states."""
    states: Sequence[CellState] = ()
    with following(console) as follow:
        for update in run_sweep(queue, pool, workers):
            follow(queue, update)
            states = update.states
    return states


@contextmanager
def following(console: Console) -> Iterator[Callable[[CellQueue, SweepUpdate], None]]:
    """What prints the cells of sweeps that end, and on a terminal shows their progress."""
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext()
    with live as display:

        def follow(queue: CellQueue, update: SweepUpdate) -> None:
            console.lines(*update.notes, *(ended_line(queue, state) for state in update.ended))
            if display is not None and not update.is_over:
                display.update(overview(queue, update.states, update.workers), refresh=True)

        yield follow


def _stop(console: Console, pool: WorkerPool) -> None:
    """Stops the workers, or kills them where the user insists."""
    if pool.alive:
        console.lines("neq: stopping: runs keep their last checkpoint (Ctrl-C again: at once)")
    try:
        pool.stop()
    except BaseException:
        pool.kill()
        raise
