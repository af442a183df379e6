"""`neq sweep`: runs the cells of a sweep file on this machine, alone or with others, without any account."""

from __future__ import annotations

import argparse
import time
from contextlib import closing, nullcontext
from pathlib import Path

from rich.live import Live

from neq.cli.parsing import Parser
from neq.cli.sweep_table import best_line, counts, ended_line, failures, overview
from neq.config import find_config, read_yaml
from neq.sweeps import Sweep, cells, check_search, history, read_sweep
from neq.sweeps.history import CellState
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.storage import FILE, open_storage, patiently
from neq.sweeps.worker_pool import Workers, cores, is_here, workers_that_fit
from neq.utils.console import Console
from neq.utils.errors import UserError

POLL = 0.5
MAX_FAILURES = 5


def command(arguments: list[str]) -> int:
    """Runs a sweep, or tells how far it is; gives the exit code: 1 where cells failed or are left.

    Args:
        arguments: "sweep", then "status" or not, the sweep file, options.
    """
    given = arguments[1:]
    if given[:1] == ["status"]:
        return _status(given[1:])
    options = _parser().parse_args(given)
    sweep, base = _read(options.file)
    runs: Path = options.runs_dir
    queue = CellQueue(open_storage(options.storage, runs), sweep_name(sweep, options.file.stem, base), sweep)
    with closing(queue):
        return _sweep(queue, base, runs, options)


def _sweep(queue: CellQueue, base: dict[str, object], runs: Path, options: argparse.Namespace) -> int:
    """Runs the cells; gives the exit code."""
    console = Console(highlight=False)
    _tell(console, *_beginning(queue, options.file))
    patiently(queue.begin)
    if options.retry_failed:
        again = patiently(lambda: queue.put_up(failed=True))
        _tell(console, f"neq: {again} failed cell{' waits' if again == 1 else 's wait'} again")
    places = options.workers or min(cores(), queue.size or cores())
    workers = Workers(queue, options.storage, runs, base, places, options.max_failures)
    try:
        states = _run(console, queue, workers, options.workers)
    except BaseException:
        _stop(console, workers)
        raise
    _tell(console, counts(queue, states), *best_line(queue, states), *failures(states))
    left = [state for state in states if state.state not in ("done", "stopped")]
    if any(state.state == "failed" for state in left):
        _tell(console, "neq: --retry-failed runs failed cells again")
    return 1 if left else 0


def _parser() -> Parser:
    parser = Parser(
        prog="neq sweep",
        usage="neq sweep FILE [options]\n       neq sweep status FILE [options]",
        description="Run the cells of a sweep file (W&B's own format) on this machine; the same command "
        "again goes on, also beside others. status tells how far it is.",
        allow_abbrev=False,
    )
    _add_places(parser)
    parser.add_argument(
        "--workers", type=_count_or_auto, default=1, metavar="N|auto",
        help="runs at a time; auto: as many as cores and the memory of the first run allow (default: 1)",
    )  # fmt: skip
    parser.add_argument("--retry-failed", action="store_true", help="run the failed cells again")
    parser.add_argument(
        "--max-failures", type=_count, default=MAX_FAILURES, metavar="K",
        help=f"a worker stops after K failures in a row (default: {MAX_FAILURES})",
    )  # fmt: skip
    return parser


def _add_places(parser: Parser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="as policies/digits/velocity.yaml")
    parser.add_argument(
        "--storage", metavar="URL",
        help=f"postgresql://USER@HOST/DATABASE for many machines (default: the file {FILE} beside the runs)",
    )  # fmt: skip
    parser.add_runs_dir()
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a whole number from 1 on is expected")
    return int(text)


def _count_or_auto(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return _count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto") from None


def _read(file: Path) -> tuple[Sweep, dict[str, object]]:
    """The sweep, every cell checked, and the settings that its runs start from."""
    sweep = read_sweep(file)
    try:
        if sweep.method == "grid":
            cells(sweep)
        else:
            check_search(sweep)
    except UserError as error:
        raise UserError(f"file {str(file)!r}: {error}") from None
    return sweep, read_yaml(find_config(sweep.options.config_file))


def _status(given: list[str]) -> int:
    parser = Parser(prog="neq sweep status", description="Tell how far a sweep is.", allow_abbrev=False)
    _add_places(parser)
    options = parser.parse_args(given)
    sweep, base = _read(options.file)
    runs, name = options.runs_dir, sweep_name(sweep, options.file.stem, base)
    if options.storage is None and not (runs / FILE).exists():
        raise UserError(f"{runs / FILE} is not there: no sweep was started; neq sweep {options.file} does")
    queue = CellQueue(open_storage(options.storage, runs, reading=True), name, sweep)
    with closing(queue):
        return _tell_status(queue, options.file)


def _tell_status(queue: CellQueue, file: Path) -> int:
    if not queue.exists():
        raise UserError(f"{file} was not started, or edited since; neq sweep {file} starts it")
    console, states = Console(), queue.states()
    console.print(overview(queue, states, 0), highlight=False)
    _tell(console, *failures(states))
    return 0


def _beginning(queue: CellQueue, file: Path) -> list[str]:
    """What the user should know of the sweep before it goes on."""
    label = queue.name.rpartition("-")[0]
    names = queue.names()
    if queue.name in names:
        return [f"neq: goes on with sweep {queue.name}"]
    others = [name for name in names if name.rpartition("-")[0] == label]
    if not others:
        return [f"neq: begins sweep {queue.name}"]
    return [
        f"neq: begins sweep {queue.name}: {file} was edited since {others[-1]}",
        "neq: runs that both ask for are not trained again",
    ]


def _run(console: Console, queue: CellQueue, workers: Workers, wanted: int | None) -> list[CellState]:
    """Keeps workers at work until every cell is ended, here or elsewhere; gives the states then."""
    count, told = wanted or 1, {state.cell for state in queue.states() if state.state in history.FINAL}
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext()
    with live as display:
        while True:
            lines = workers.watch()
            patiently(queue.put_up)
            states = patiently(queue.states)
            lines += _newly_ended(queue, states, told)
            if wanted is None and (memories := _memories(states)):
                wanted, why = workers_that_fit(memories)
                count = wanted
                lines.append(f"{wanted} worker{'' if wanted == 1 else 's'} ({why})")
            _tell(console, *lines)
            waiting = _waiting(queue, states)
            if waiting == 0 and not any(state.state == "running" for state in states):
                if workers.alive == 0:
                    return states
            elif workers.gave_up >= count and workers.alive == 0:
                _tell(console, "neq: every worker has stopped; mend what fails, then run the command again")
                return states
            workers.keep(count, waiting)
            if display is not None:
                display.update(overview(queue, states, workers.alive), refresh=True)
            time.sleep(POLL)


def _newly_ended(queue: CellQueue, states: list[CellState], told: set[int]) -> list[str]:
    ended = [state for state in states if state.state in history.FINAL and state.cell not in told]
    told |= {state.cell for state in ended}
    return [ended_line(queue, state) for state in ended]


def _waiting(queue: CellQueue, states: list[CellState]) -> int:
    """Cells that nobody has taken; draws to come are some of them."""
    waiting = sum(state.state == "waiting" for state in states)
    if queue.sweep.method == "grid":
        return waiting
    to_come = cores() if queue.size is None else max(0, queue.size - len(states))
    return waiting + to_come


def _memories(states: list[CellState]) -> list[dict[str, int]]:
    """What workers of this machine have told of the memory that training took."""
    told = [state.trial.user_attrs for state in states if state.trial is not None]
    return [said[history.MEMORY] for said in told if history.MEMORY in said and is_here(said[history.WORKER])]


def _stop(console: Console, workers: Workers) -> None:
    """Ends the workers in order, or at once where the user insists."""
    if workers.alive:
        _tell(console, "neq: ending: runs keep their last checkpoint (Ctrl-C again: at once)")
    try:
        workers.stop()
    except BaseException:
        workers.kill()
        raise


def _tell(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False)
