"""Automatic selection against full fine-tuning, SU and other selections, on several sets of photos.

python -m benchmarks.automatic --data photos --weights mobilenet_v2.safetensors --output automatic.json
python -m benchmarks.automatic --table --output automatic.json

Each set is a folder in --data (train/CLASS/*, test/CLASS/*). Full fine-tuning and SU train at every learning
rate of their grids with the first seed and keep the best on validation; the others search their rate
themselves (--base_lr auto). Every run is written to the output as it ends: the same call goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from benchmarks.automatic_table import tables
from benchmarks.common import at_least
from benchmarks.photo_sets import add_arguments, parsed, run_reported, train_lacking
from benchmarks.transfer_report import Report
from benchmarks.transfer_runs import FULL_FROZEN, FULL_TRAIN, SU_FROZEN, Cell, Setting, of_policy
from neq.cli.parsing import Parser

SETS = ("flowers12", "caltech101", "dtd10", "trashnet6", "gtsrb20", "food20_64px")
GRID = (0.05, 0.025, 0.0125)
AUTO = ("auto",)
LIMITS = ("5MiB", "2MiB")
CRITERIA = ("gradient_norm", "loss_decrease", "squared_gradient", "relative_gradient", "fisher")


def _under(limit: str) -> dict[str, Cell]:
    """The cells with a budget in bytes of training memory."""
    budget = {"budget": limit, "budget_unit": "bytes"}

    def cell(policy: str, first: str = "head", **more: object) -> Cell:
        return Cell(of_policy(policy, "frozen", first, **budget, **more), AUTO)

    cells = {
        f"auto {criterion}": cell("auto", cost_aware=True, importance=criterion) for criterion in CRITERIA
    }
    cells |= {"last layers": cell("last"), "trady": cell("trady"), "medyate": cell("medyate")}
    cells |= {"velocity": cell("velocity", "random", cost_aware=True), "random": cell("random")}
    return {f"{name}, {limit}": each for name, each in cells.items()}


CELLS = {
    "full-frozen": replace(FULL_FROZEN, grid=(0.0125, 0.00625, 0.003125)),
    "full-train": replace(FULL_TRAIN, grid=(0.1, *GRID)),
    "SU 1": SU_FROZEN,
    "head": Cell(of_policy("head", "frozen", ratio=0.0), AUTO),
    **_under(LIMITS[0]),
    **_under(LIMITS[1]),
}


# What the recipe of photos is chosen by: the same policy and budget, one setting changed.
_CHANGED: dict[str, dict[str, object]] = {
    "momentum 0.9": {"momentum": 0.9},
    "norms frontier": {"norm_mode": "frontier"},
    "head 1 epoch": {"initial_epochs": 1},
    "adam": {"optimizer_name": "adam"},
    "crops from 0.35": {"resize_scale": 0.35},
    "no augmentation": {"augmentation": "none"},
    "batch 16": {"base_batch_size": 16},
    "16 epochs": {"n_epochs": 16, "test_per_epochs": 16},
    "32 epochs": {"n_epochs": 32, "test_per_epochs": 32},
}
RECIPES = {
    f"recipe, {name}": Cell({**CELLS[f"auto gradient_norm, {LIMITS[0]}"].overrides, **changed}, AUTO)
    for name, changed in _CHANGED.items()
}
# SU on a number of views of each image, whose maps below the first chosen layer are kept.
RECIPES |= {
    f"SU 1, {views} views": replace(SU_FROZEN, overrides={**SU_FROZEN.overrides, "prefix_cache": views})
    for views in (1, 2, 4, 8)
}
# Full fine-tuning for as many epochs as the recipe has, which takes three times as long as the recipe.
_LONG = {**FULL_TRAIN.overrides, **_CHANGED["16 epochs"]}
RECIPES["recipe, full-train 16 epochs"] = Cell(_LONG, grid=(0.05, 0.025))


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UserError: wrong ones.
    """
    parser = Parser(prog="python -m benchmarks.automatic", description=__doc__.split("\n")[0])
    add_arguments(parser, SETS, Setting.image_size, "automatic.json")
    parser.add_argument("--weights", default=Setting.weights, help="default, none, or a file")
    parser.add_argument(
        "--cells",
        default=";".join(CELLS),
        help="with ; between them; by default all but recipe, ... and SU 1, N views",
    )
    parser.add_argument("--network", default=Setting.network)
    parser.add_argument("--epochs", type=at_least(1), default=Setting.epochs)
    return parsed(parser, argv, SETS, CELLS | RECIPES)


def train(report: Report, given: argparse.Namespace) -> None:
    """Trains what the report lacks: all sets with one seed, then with the next."""
    for seed in range(given.seeds):
        for name in given.sets:
            setting = Setting(
                name,
                str(given.data / name),
                given.network,
                given.weights,
                given.image_size,
                epochs=given.epochs,
                cells=CELLS | RECIPES,
            )
            train_lacking(report, setting, given.cells, seed, GRID)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return run_reported(parse, train, tables, argv)


if __name__ == "__main__":
    sys.exit(main())
