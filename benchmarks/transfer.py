"""What fine-tuning under a budget reaches: accuracy, step time and saved bytes of ten cells.

python -m benchmarks.transfer --dataset flowers12 --root photos/flowers12 \\
    --weights mobilenet_v2.safetensors --seeds 0,1,2 --output transfer.json
python -m benchmarks.transfer --table --output transfer.json

The first seed trains every cell at every learning rate of the grid; each cell keeps the one that is best on
validation, and the other seeds train at that one. Every run is written to the output as it ends: the same
call goes on where it was stopped, one with more seeds or another data set adds to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.common import at_least, check_output, open_device, run_benchmark
from benchmarks.transfer_report import Report, report_to_write
from benchmarks.transfer_runs import CELLS, Rate, Setting, Task, train_task, weights_identity
from benchmarks.transfer_table import chosen_rate, tables
from neq.cli.parsing import Parser
from neq.utils.errors import UserError, shown, unknown_name

DATASETS = ("flowers12", "caltech101", "cifar10")
GRID = (0.05, 0.0125)
# What all runs of one report share.
SHARED = ("network", "image_size", "batch_size", "epochs", "scheme")


def sweep(
    report: Report,
    setting: Setting,
    cells: Sequence[str],
    seeds: Sequence[int],
    grid: Sequence[Rate],
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Trains what the report still lacks, seed by seed.

    Args:
        report: gets an entry for each run.
        setting: what the runs share.
        cells: names in the setting's cells.
        seeds: the first one chooses the learning rates.
        grid: learning rates to choose from.
        jobs: runs at a time.
        say: is told what is trained next.

    Raises:
        UserError: data, weights or network that cannot be used, or a report of other settings.
    """
    settle(report, setting, cells, seeds[0], grid)
    for seed in seeds:
        for entry in _train(lacking(report, setting, cells, seed, seeds[0], grid), jobs, say):
            report.add(entry)


def settle(
    report: Report, setting: Setting, cells: Sequence[str], grid_seed: int, grid: Sequence[Rate]
) -> None:
    """Makes sure that runs of this setting belong into the report.

    Raises:
        UserError: they do not.
    """
    shared = {key: getattr(setting, key) for key in SHARED}
    weights = weights_identity(_task(report, setting, cells[0], grid[0], grid_seed))
    report.settle({**shared, "weights": weights, "grid": list(grid), "grid_seed": grid_seed})


def lacking(
    report: Report,
    setting: Setting,
    cells: Sequence[str],
    seed: int,
    grid_seed: int,
    grid: Sequence[Rate],
) -> list[Task]:
    """The runs of a seed that the report lacks: each cell at its whole grid, or at the rate that it keeps."""
    tasks = []
    for cell in cells:
        rates = setting.cells[cell].grid or grid
        if seed != grid_seed and len(rates) > 1:
            kept = chosen_rate(report.runs, setting.dataset, cell, grid_seed)
            rates = () if kept is None else (kept,)
        tasks += [_task(report, setting, cell, rate, seed) for rate in rates]
    return [task for task in tasks if not report.holds(task)]


def _task(report: Report, setting: Setting, cell: str, rate: Rate, seed: int) -> Task:
    folder = report.path.with_suffix(".runs") / setting.dataset / f"{cell}-lr{rate}-seed{seed}"
    return Task(setting, cell, rate, seed, folder)


def _train(tasks: list[Task], jobs: int, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """The entries of runs, as they end."""
    names = [f"{'  '.join(map(str, task.key))}  ({i} of {len(tasks)})" for i, task in enumerate(tasks, 1)]
    if jobs == 1:
        for task, name in zip(tasks, names, strict=True):
            say(name)
            yield train_task(task)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(train_task, task): name for task, name in zip(tasks, names, strict=True)}
        try:
            for future in as_completed(futures):
                say(f"{futures[future]} is done")
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _listed(kind: Callable[[str], Any], what: str) -> Callable[[str], list[Any]]:
    """An argument's type: values with commas between them, each once."""

    def values(text: str) -> list[Any]:
        try:
            given = [kind(part) for part in text.split(",")]
        except ValueError:
            given = []
        if not given or len(set(given)) < len(given):
            raise argparse.ArgumentTypeError(f"{shown(text)} is no list of {what}, as in 0,1,2")
        return given

    return values


def _rate(text: str) -> float:
    if not 0 < (rate := float(text)) < float("inf"):
        raise ValueError
    return rate


def _seed(text: str) -> int:
    if not 0 <= (seed := int(text)) < 2**63:
        raise ValueError
    return seed


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UserError: wrong ones.
    """
    parser = Parser(prog="python -m benchmarks.transfer", description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="print the tables of --output, train nothing")
    parser.add_argument("--dataset", choices=DATASETS, help="what the report calls the images in --root")
    parser.add_argument("--root", help="folder of images: train/CLASS/* and test/CLASS/*")
    parser.add_argument("--weights", default=Setting.weights, help="default, none, or a file")
    parser.add_argument("--seeds", type=_listed(_seed, "seeds"), default=[0, 1, 2])
    parser.add_argument("--cells", default=",".join(CELLS), help=f"some of {', '.join(CELLS)}")
    parser.add_argument("--grid", type=_listed(_rate, "learning rates"), default=list(GRID))
    parser.add_argument("--epochs", type=at_least(1), default=Setting.epochs)
    parser.add_argument("--network", default=Setting.network)
    parser.add_argument("--scheme", default=Setting.scheme, help="SU's lists; random's and velocity's budget")
    parser.add_argument("--image-size", type=at_least(8), default=Setting.image_size)
    parser.add_argument("--batch-size", type=at_least(2), default=Setting.batch_size)
    parser.add_argument("--device", choices=["cpu", "cuda"], default=Setting.device)
    parser.add_argument("--threads", type=at_least(1), default=Setting.threads)
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, help="runs at a time; they slow each other down"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("transfer.json"), help="a JSON file; runs beside it"
    )
    given = parser.parse_args(argv)
    given.cells = given.cells.split(",")
    for name in given.cells:
        if name not in CELLS:
            raise unknown_name("cell", name, CELLS)
    check_output(given.output)
    if not given.table:
        for name in ("dataset", "root"):
            if getattr(given, name) is None:
                raise UserError(f"--{name} is missing; see --help")
    return given


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        given = parse(arguments)
        if given.table:
            print(tables(Report(given.output)))
            return
        open_device(given.device)
        names = {field.name for field in dataclasses.fields(Setting)} - {"cells"}
        setting = Setting(**{name: value for name, value in vars(given).items() if name in names})
        with report_to_write(given.output) as report:
            sweep(report, setting, given.cells, given.seeds, given.grid, given.jobs)

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
