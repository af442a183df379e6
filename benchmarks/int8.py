"""Int8 networks trained with quantization-aware scaling, without it and with Adam, and the float network.

python -m benchmarks.int8 --data photos --weights mcunet-5fps.pkl --output int8.json
python -m benchmarks.int8 --table --output int8.json

Each set is a folder in --data (train/CLASS/*, test/CLASS/*), cifar10 an archive of which 1,000 training and
500 test images are used. Every cell trains at each learning rate of its grid with the first seed and keeps
the best on validation for the other seeds. Every run is written to the output as it ends: the same call goes
on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from benchmarks.common import at_least, run_benchmark
from benchmarks.int8_memory import step_memory, training_memory
from benchmarks.int8_table import tables
from benchmarks.transfer import lacking, settle
from benchmarks.transfer_report import Report, check_output, report_to_write
from benchmarks.transfer_runs import Cell, Setting, Task, of_policy, resolved, train_task
from neq.cli.parsing import Parser
from neq.int8 import Int8Network, float_weights
from neq.networks.build import build_network
from neq.utils.atomic_files import atomic_file
from neq.utils.errors import UserError, unknown_name

SETS = ("flowers12", "cifar10", "dtd10", "caltech101")
ARCHIVE, IMAGES = "cifar10_subset.npz", {"train": 1000, "test": 500}
NETWORK, FLOAT, SCHEME = "int8:mcunet-in1", "mcunet-in1_folded", "mcunet-in1_scheme_3"
# .4, .1 and .025 for 256 images, of which the published code takes .1. Without scaling codes hardly move at
# any rate, and the classifier, which then trains alone, takes more.
GRID = (0.05, 0.0125, 0.003125)
HEAD_GRID = (0.8, 0.2, 0.05)
ADAM_GRID = (0.016, 0.004, 0.001)


def _su(scheme: str, more: Mapping[str, object], grid: tuple[float, ...] | None = None) -> Cell:
    return Cell({**of_policy("SU", "frozen", scheme=scheme, unit="input_channel"), **more}, grid)


def _under(policy: str, first: str, unit: str, limit: int, more: Mapping[str, object]) -> Cell:
    budget = {"budget": limit, "budget_unit": "bytes", "cost_aware": True, "unit": unit}
    return Cell({**of_policy(policy, "frozen", first), **budget, **more})


def cells(limits: Mapping[str, int], float_file: str) -> dict[str, Cell]:
    """What is compared.

    Args:
        limits: network -> bytes of training memory of velocity and auto.
        float_file: weights of the float network.
    """
    last_6, last_12 = "mcunet-in1_last_6", "mcunet-in1_last_12"
    found = {
        "SGD, 100 kB": _su(SCHEME, {"qas": False}, HEAD_GRID),
        "SGD, last 6": _su(last_6, {"qas": False}, HEAD_GRID),
        "Adam, 100 kB": _su(SCHEME, {"qas": False, "optimizer_name": "adam"}, ADAM_GRID),
    }
    float_network = {"net_name": FLOAT, "weights": float_file}
    for name, network, more in (("QAS", NETWORK, {}), ("float", FLOAT, float_network)):
        own = {
            "100 kB": _su(SCHEME, more),
            "last 6": _su(last_6, more),
            "last 12": _su(last_12, more),
            "full": Cell({**of_policy("full", "frozen", ratio=1.0), **more}),
            "velocity": _under("velocity", "random", "neuron", limits[network], more),
            "auto": _under("auto", "head", "input_channel", limits[network], more),
            "head": Cell({**of_policy("head", "frozen", ratio=0.0), **more}, HEAD_GRID),
        }
        found |= {f"{name}, {what}": cell for what, cell in own.items()}
    return found


NAMES = tuple(cells({NETWORK: 0, FLOAT: 0}, "none"))


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UserError: wrong ones.
    """
    parser = Parser(prog="python -m benchmarks.int8", description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="print the table of --output, train nothing")
    parser.add_argument("--data", type=Path, help="folder of the sets")
    parser.add_argument("--weights", default="default", help="default, none, or a file of int8:mcunet-in1")
    parser.add_argument("--sets", default=",".join(SETS), help=f"some of {', '.join(SETS)}")
    parser.add_argument("--cells", default=";".join(NAMES), help="with ; between them")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="number of seeds")
    parser.add_argument("--epochs", type=at_least(1), default=18, help="after those of warm-up, a ninth")
    parser.add_argument("--image-size", type=at_least(8), default=128)
    parser.add_argument("--output", type=Path, default=Path("int8.json"), help="a JSON file; runs beside it")
    given = parser.parse_args(argv)
    given.cells = [name.strip() for name in given.cells.split(";")]
    given.sets = given.sets.split(",")
    for key, names, known in (("cell", given.cells, NAMES), ("set", given.sets, SETS)):
        for name in names:
            if name not in known:
                raise unknown_name(key, name, known)
    check_output(given.output)
    if not given.table and given.data is None:
        raise UserError("--data is missing: the folder of the sets; see --help")
    return given


def setting_of(given: argparse.Namespace, name: str, folder: Path) -> Setting:
    """What the runs of a set share.

    Args:
        given: the arguments.
        name: of the set.
        folder: for files that are made.
    """
    folder.mkdir(exist_ok=True)
    root, float_file = given.data / name, "none"
    if name == "cifar10":
        root = _subset(given.data / name / ARCHIVE, folder / "cifar10.npz")
    if given.weights != "none":
        float_file = _float_weights(given.weights, folder / f"{FLOAT}.safetensors")
    shared = {
        **{"network": NETWORK, "weights": given.weights, "image_size": given.image_size},
        **{"epochs": given.epochs, "scheme": SCHEME},
    }
    first = Setting(name, str(root), cells=cells({NETWORK: 0, FLOAT: 0}, float_file), **shared)
    limits = {
        network: step_memory(resolved(Task(first, cell, GRID[0], 0, folder)).config, str(root))
        for network, cell in ((NETWORK, "QAS, 100 kB"), (FLOAT, "float, 100 kB"))
    }
    warmed = {
        key: Cell({"warmup_epochs": given.epochs // 9, **cell.overrides}, cell.grid)
        for key, cell in cells(limits, float_file).items()
    }
    return Setting(name, str(root), cells=warmed, **shared)


def _subset(archive: Path, path: Path) -> Path:
    """The first images of an archive in a file of their own."""
    with np.load(archive, allow_pickle=False) as file:
        arrays = {f"{key}_{part}": file[f"{key}_{part}"][:n] for part, n in IMAGES.items() for key in "xy"}
        arrays["classes"] = file["classes"]
    with atomic_file(path) as made:
        np.savez(made, **arrays)
    return path


def _float_weights(weights: str, path: Path) -> str:
    """A file with the weights of the float network that an int8 one stands for."""
    network = build_network(NETWORK, 10, weights=weights)
    assert isinstance(network, Int8Network)
    found = float_weights(network.describe())
    save_file({key: value for key, value in found.items() if not key.startswith(network.head)}, path)
    return str(path)


def train(report: Report, given: argparse.Namespace) -> None:
    """Trains what the report lacks: all sets with one seed, then with the next."""
    folder = report.path.with_suffix(".runs")
    settings = [setting_of(given, name, folder) for name in given.sets]
    for seed in range(given.seeds):
        for setting in settings:
            settle(report, setting, given.cells, 0, GRID)
            for task in lacking(report, setting, given.cells, seed, 0, GRID):
                print(*task.key, sep="  ", flush=True)
                entry = train_task(task)
                report.add({**entry, **training_memory(task, entry["saved_bytes"])})


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""

    def command(arguments: list[str]) -> None:
        given = parse(arguments)
        if given.table:
            print(tables(Report(given.output)))
            return
        with report_to_write(given.output) as report:
            train(report, given)

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
