"""What benchmarks share that train cells on several sets: the command line, and training what is lacking."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import at_least, check_output, run_benchmark
from benchmarks.transfer import lacking, settle
from benchmarks.transfer_report import Report, report_to_write
from benchmarks.transfer_runs import Setting, Task, train_task
from neq.utils.errors import UserError, unknown_name

# The first seed chooses the learning rates.
GRID_SEED = 0


def add_arguments(parser: argparse.ArgumentParser, sets: Sequence[str], image_size: int, output: str) -> None:
    """Adds the arguments that all of them have.

    Args:
        parser: of the benchmark.
        sets: names of all sets.
        image_size: default of --image-size.
        output: default of --output.
    """
    parser.add_argument("--table", action="store_true", help="print the tables of --output, train nothing")
    parser.add_argument("--data", type=Path, help="folder of the sets")
    parser.add_argument("--sets", default=",".join(sets), help=f"some of {', '.join(sets)}")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="number of seeds")
    parser.add_argument("--image-size", type=at_least(8), default=image_size)
    parser.add_argument("--output", type=Path, default=Path(output), help="a JSON file; runs beside it")


def parsed(
    parser: argparse.ArgumentParser, argv: list[str], sets: Collection[str], cells: Collection[str]
) -> argparse.Namespace:
    """The arguments, `sets` and `cells` as lists of names.

    Args:
        parser: with a default for --cells, which has ; between names.
        argv: the arguments.
        sets, cells: all names.

    Raises:
        UserError: wrong ones.
    """
    given = parser.parse_args(argv)
    given.cells = [name.strip() for name in given.cells.split(";")]
    given.sets = given.sets.split(",")
    for key, names, known in (("cell", given.cells, cells), ("set", given.sets, sets)):
        for name in names:
            if name not in known:
                raise unknown_name(key, name, known)
    check_output(given.output)
    if not given.table and given.data is None:
        raise UserError("--data is missing: the folder of the sets; see --help")
    return given


def train_lacking(
    report: Report,
    setting: Setting,
    cells: Sequence[str],
    seed: int,
    grid: Sequence[float],
    measured: Callable[[Task, dict[str, Any]], dict[str, Any]] = lambda task, entry: {},
) -> None:
    """Trains the runs of a set and a seed that the report lacks.

    Args:
        report: gets an entry for each run.
        setting: what the runs of the set share.
        cells: names in the setting's cells.
        seed: of the runs.
        grid: learning rates of cells without a grid of their own.
        measured: returns what else an entry holds, from the task and the entry.
    """
    settle(report, setting, cells, GRID_SEED, grid)
    for task in lacking(report, setting, cells, seed, GRID_SEED, grid):
        print(*task.key, sep="  ", flush=True)
        entry = train_task(task)
        report.add({**entry, **measured(task, entry)})


def run_reported(
    parse: Callable[[list[str]], argparse.Namespace],
    train: Callable[[Report, argparse.Namespace], None],
    tables: Callable[[Report], str],
    argv: list[str] | None,
) -> int:
    """Runs a benchmark's command, which trains into --output or prints its tables; returns the exit code."""

    def command(arguments: list[str]) -> None:
        given = parse(arguments)
        if given.table:
            print(tables(Report(given.output)))
            return
        with report_to_write(given.output) as report:
            train(report, given)

    return run_benchmark(command, argv)
