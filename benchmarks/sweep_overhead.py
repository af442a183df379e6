"""What a cell of a sweep costs beside its training: workers that stay, against one process a cell.

python -m benchmarks.sweep_overhead --cells 12 --seconds 10

The cells train mcunet-in0 on the digits for about the seconds asked for. What a run itself takes is read off
its files: its configuration is written before the first step, its summary after the last.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import at_least, machine, run_benchmark
from neq.cli.parsing import Parser
from neq.utils.atomic_files import write_text

SETTINGS = {"dataset": "digits", "net_name": "mcunet-in0", "image_size": 32, "warmup_epochs": 0, "ratio": 0.3}
PROBE_EPOCHS = 4


def measure(cells: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Wall seconds a cell and what of them is training, by way of starting.

    Args:
        cells: of the sweep.
        seconds: that a cell should train.
        folder: empty; every way trains in a folder of its own below.
    """
    probe = folder / "probe"
    _train(probe, PROBE_EPOCHS, 0)
    epochs = max(1, math.ceil(seconds / _training_seconds(probe)[0] * PROBE_EPOCHS))
    ways = {"neq sweep": _sweep, "one process a cell": _one_by_one}
    found: dict[str, Any] = {"cells": cells, "epochs": epochs}
    for name, run in ways.items():
        place = folder / name.replace(" ", "-")
        start = time.perf_counter()
        run(place, epochs, cells)
        wall = (time.perf_counter() - start) / cells
        trained = _training_seconds(place)
        assert len(trained) == cells, f"{len(trained)} of {cells} runs are there"
        training = sum(trained) / cells
        found[name] = {"wall": wall, "training": training, "overhead": (wall - training) / training}
    return found


def _sweep(folder: Path, epochs: int, cells: int) -> None:
    folder.mkdir()
    fixed = "".join(
        f"  {name}: {{value: {value}}}\n" for name, value in {**SETTINGS, "n_epochs": epochs}.items()
    )
    seeds = f"  manual_seed: {{values: {list(range(cells))}}}\n"
    text = f"program: train_classification.py\nmethod: grid\nparameters:\n{fixed}{seeds}"
    write_text(folder / "sweep.yaml", text)
    _neq(folder, "sweep", "sweep.yaml")


def _one_by_one(folder: Path, epochs: int, cells: int) -> None:
    for seed in range(cells):
        _train(folder, epochs, seed)


def _train(folder: Path, epochs: int, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    given = {**SETTINGS, "n_epochs": epochs, "manual_seed": seed}
    _neq(folder, "train", *(f"--{name}={value}" for name, value in given.items()))


def _neq(folder: Path, *arguments: str) -> None:
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "WANDB_MODE": "disabled"}
    command = [sys.executable, "-m", "neq", *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def _training_seconds(folder: Path) -> list[float]:
    """Of every run below a folder: the seconds from its configuration to its summary."""
    return [
        path.stat().st_mtime - (path.parent / "config.yaml").stat().st_mtime
        for path in sorted(folder.glob("runs/**/summary.json"))
    ]


def table(found: dict[str, Any]) -> Table:
    """The figures as a table."""
    made = Table(title=f"{found['cells']} cells of {found['epochs']} epochs, one at a time")
    for name in ("started by", "s a cell", "of them training", "overhead of training"):
        made.add_column(name, justify="left" if name == "started by" else "right")
    for name in ("neq sweep", "one process a cell"):
        row = found[name]
        made.add_row(name, f"{row['wall']:.1f}", f"{row['training']:.1f}", f"{row['overhead']:.1%}")
    return made


def main(argv: list[str]) -> None:
    """The benchmark's command."""
    parser = Parser(prog="python -m benchmarks.sweep_overhead", description=__doc__)
    parser.add_argument("--cells", type=at_least(1), default=12, help="cells of the sweep (default: 12)")
    parser.add_argument("--seconds", type=at_least(1), default=10, help="training of a cell (default: 10)")
    parser.add_argument("--output", type=Path, help="also write the figures to this JSON file")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.cells, options.seconds, Path(folder))
    found["machine"] = machine(torch.device("cpu"))
    Console().print(table(found))
    if options.output:
        write_text(options.output, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run_benchmark(main))
