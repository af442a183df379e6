"""Retraining on shifted tasks within a memory limit: selection, recomputation, accumulation, and all of them.

python -m benchmarks.retraining --sequence cifar10 --data cifar10.npz --weights resnet20.safetensors
python -m benchmarks.retraining --sequence digits --data DIR
python -m benchmarks.retraining --table

--data is a file of CIFAR-10's photos (x_test, y_test), or a folder with mnist_subset.npz, usps.npz and
optdigits.npz. Limits are shares of the memory that full training is predicted to take. Every method trains
at each learning rate on the first task and goes on with the one that is best on its validation photos. Every
cell has a process of its own and is written to the output as it ends: the same call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import at_least, check_output
from benchmarks.photo_sets import run_reported
from benchmarks.retraining_runs import (
    ANY,
    BATCH,
    COMMON,
    METHODS,
    REFERENCE,
    UNTRAINED,
    Cell,
    evaluated,
    plan_of,
    sequences,
    train_cell,
    train_source,
    within,
)
from benchmarks.retraining_table import tables
from benchmarks.transfer_report import Report
from neq.cli.parsing import Parser
from neq.planning.device_plan import DevicePlan
from neq.utils.errors import UserError, unknown_name

# Shares of full training's memory; none: no limit. TENT and full training themselves have none.
LIMITS: dict[str, float | None] = {"none": None, "1/4.1": 1 / 4.1, "1/2": 1 / 2}
_UNLIMITED = (*UNTRAINED, REFERENCE, "TENT")


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UserError: wrong ones.
    """
    parser = Parser(prog="python -m benchmarks.retraining", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--table", action="store_true", help="print the tables of --output, train nothing")
    add("--sequence", choices=tuple(sequences("")), default="cifar10")
    add("--data", type=Path, help="file or folder of the photos")
    add("--weights", type=Path, help="of the network, where the sequence does not train it")
    add("--seeds", type=at_least(1), default=3, help="number of seeds")
    add("--epochs", type=at_least(1), default=3, help="of each task")
    add("--rates", default="0.04,0.01", help="learning rates to choose from")
    add("--limits", default=",".join(LIMITS), help=f"some of {', '.join(LIMITS)}")
    add("--methods", default=",".join((*UNTRAINED, *METHODS)), help="some of them")
    add("--output", type=Path, default=Path("retraining.json"), help="a JSON file; runs beside it")
    given = parser.parse_args(argv)
    check_output(given.output)
    given.limits, given.methods = given.limits.split(","), given.methods.split(",")
    for key, names, known in (
        ("limit", given.limits, LIMITS),
        ("method", given.methods, (*UNTRAINED, *METHODS)),
    ):
        for name in names:
            if name not in known:
                raise unknown_name(key, name, known)
    try:
        given.rates = tuple(float(rate) for rate in given.rates.split(","))
    except ValueError:
        raise UserError(f"--rates {given.rates!r} are no numbers with , between them") from None
    if not given.table and given.data is None:
        raise UserError("--data is missing: the file or folder of the photos; see --help")
    if not given.table and given.sequence == "cifar10" and given.weights is None:
        raise UserError("--weights is missing: a file of the network's weights; see --help")
    return given


def train(report: Report, given: argparse.Namespace) -> None:
    """Trains the cells that the report lacks: all methods with one seed, then with the next."""
    report.settle(
        {
            "network": COMMON["net_name"],
            "batch_size": BATCH,
            "epochs": given.epochs,
            "rates": list(given.rates),
        }
    )
    runs = given.output.with_suffix("").parent / f"{given.output.stem}_runs"
    for seed in range(given.seeds):
        cell = Cell(
            given.sequence,
            str(given.data.absolute()),
            REFERENCE,
            seed,
            given.epochs,
            given.rates,
            str(given.weights.absolute()) if given.weights else "",
            runs / f"{given.sequence}_source_{seed}",
        )
        if not cell.weights:
            cell = replace(cell, weights=_alone(train_source, cell))
        for limit in given.limits:
            for method in given.methods:
                if (limit == "none") == (method in _UNLIMITED):
                    _settle(report, replace(cell, method=method), limit, runs)


def _settle(report: Report, cell: Cell, limit: str, runs: Path) -> None:
    """Adds a cell's entry unless the report has it; what has the settings of another is not trained again."""
    key: dict[str, Any] = {
        "sequence": cell.sequence,
        "method": cell.method,
        "limit": limit,
        "seed": cell.seed,
    }
    if any(key.items() <= run.items() for run in report.runs):
        return
    print(*key.values(), sep="  ", flush=True)
    if cell.method in UNTRAINED:
        report.add({**key, **_alone(evaluated, cell)})
        return
    plan = _planned(cell, runs)
    share = LIMITS[limit]
    most = None
    if share is not None:
        most = int(share * (_planned(replace(cell, method=REFERENCE), runs).chosen.peak or 0))
    key["limit_bytes"] = most
    number = within(plan, ANY if most is None else most)
    if number is None:
        least = min(plan.rows[each].peak or 0 for each in plan.order)
        report.add({**key, "fits": False, "least": least})
        return
    row = plan.rows[number]
    settings = {**METHODS[cell.method].settings, **row.settings}
    key |= {"fits": True, "settings": settings, "share": row.share, "predicted": row.peak}
    same = {"sequence": cell.sequence, "seed": cell.seed, "settings": settings}
    for run in report.runs:
        if all(run.get(name) == value for name, value in same.items()):
            report.add({**run, **key})
            return
    name = f"{cell.sequence}_{cell.method}_{limit}_{cell.seed}".replace("/", "-").replace(" ", "_")
    report.add({**key, **_alone(train_cell, replace(cell, folder=runs / name, planned=row.settings))})


def _planned(cell: Cell, runs: Path) -> DevicePlan:
    """The plan of a method for any limit, made once."""
    path = runs / "plans" / f"{cell.sequence}_{cell.method}.json".replace(" ", "_")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        plan_of(cell).write(path)
    return DevicePlan.read(path)


def _alone(call: Callable[[Cell], Any], cell: Cell) -> Any:
    """The result of a call in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, cell).result()


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return run_reported(parse, train, tables, argv)


if __name__ == "__main__":
    sys.exit(main())
