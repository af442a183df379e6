"""Whether runs stay within random memory limits: each limit is planned, and the plan is run by neq train.

    python -m benchmarks.planning_limits --network mbv2 --image-size 64 --batch-size 32 --limits 100
    python -m benchmarks.planning_limits --network mbv2 --limits 0       # how long planning takes, alone

Limits are drawn from .08 to 1 of what full training without a plan is predicted to need, evenly on a log
scale. A run is three epochs on 96 noise images: the head alone, the measurement of importance, two epochs of
what it chose, evaluations and checkpoints. What counts is the rise of the process' most resident memory.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from benchmarks.common import at_least, run_benchmark
from neq.cli.parsing import Parser
from neq.cli.plan import given_settings, planned_settings
from neq.config import parse_flags
from neq.planning.configurations import Configuration, Learning, NormRule
from neq.planning.planning import Planner, open_planner
from neq.planning.rules import Limits
from neq.utils.console import Console
from neq.utils.errors import UserError

_LEAST, _IMAGES = 0.08, 96
_TRAIN = (sys.executable, "-m", "neq", "train", "--plan", "plan.json")
_USED = re.compile(r"training took ([\d,.]+) of")
_EXCEEDED = re.compile(r"training took ([\d,.]+) MiB of the")


def measure(planner: Planner, limit: int, flags: list[str], folder: Path) -> dict[str, Any]:
    """Plans a limit and runs the plan.

    Args:
        planner: of the run.
        limit: in bytes.
        flags: of the run.
        folder: for the plan and the run.

    Returns:
        The limit, the predicted and the measured bytes, and the settings; without the latter if nothing fits.
    """
    try:
        plan = planner.plan(Limits(limit))
    except UserError:
        return {"limit": limit}
    folder.mkdir()
    plan.write(folder / "plan.json")
    done = subprocess.run([*_TRAIN, *flags], cwd=folder, capture_output=True, text=True)
    found = _EXCEEDED.search(done.stdout) or _USED.search(done.stdout)
    if found is None:
        raise UserError(f"a run failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    used = round(float(found[1].replace(",", "")) * 2**20)
    return {"limit": limit, "peak": plan.chosen.peak, "used": used, "settings": dict(plan.chosen.settings)}


def planning_time(planner: Planner) -> str:
    """How long planning takes, in one line; what times are predicted from is measured before."""
    for rule in planner.space.norm_rules:
        planner.estimator.step_time(rule.norm_mode)
    started, worked = time.perf_counter(), time.process_time()
    rows = planner.plan(Limits(2**40)).rows
    took, worked = time.perf_counter() - started, time.process_time() - worked
    return f"{len(rows)} configurations planned in {took:.1f} s, {worked:.1f} s of CPU time"


def limits(planner: Planner, count: int) -> list[int]:
    """Random limits, the same every time."""
    batch = planner.space.batch_size
    full = planner.estimator(Configuration(Learning(1.0, NormRule("frontier")), batch)).peak
    draws = np.random.default_rng(0).uniform(math.log(_LEAST), 0, count)
    return [round(full * math.exp(draw)) for draw in draws]


def report(runs: list[dict[str, Any]]) -> Table:
    """The runs as a table."""
    made = [run for run in runs if "used" in run]
    above = sum(run["used"] > run["limit"] for run in made)
    title = f"{len(runs)} limits: {len(runs) - len(made)} below what any plan needs, {above} exceeded"
    table = Table(title=title)
    for name in ("limit, MiB", "predicted", "measured", "measured / limit", "micro-batch", "memory"):
        table.add_column(name, justify="right")
    for run in sorted(made, key=lambda each: int(each["limit"])):
        settings = run["settings"]
        table.add_row(
            *(f"{run[name] / 2**20:,.1f}" for name in ("limit", "peak", "used")),
            f"{run['used'] / run['limit']:.2f}",
            str(settings.get("micro_batch_size", "all")),
            settings["memory"],
        )
    return table


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""

    def command(arguments: list[str]) -> None:
        parser = Parser(prog="python -m benchmarks.planning_limits", description=__doc__)
        parser.add_argument("--network", default="mbv2", help="by name")
        parser.add_argument("--image-size", type=at_least(8), default=64)
        parser.add_argument("--batch-size", type=at_least(2), default=32)
        parser.add_argument("--limits", type=at_least(0), default=100)
        parser.add_argument("--output", type=Path, help="write the runs as JSON; the same file is continued")
        given, console = parser.parse_args(arguments), Console()
        runs = json.loads(given.output.read_text()) if given.output and given.output.exists() else []
        with TemporaryDirectory() as made:
            folder = Path(made)
            flags = _flags(folder / "photos", given)
            run = parse_flags(flags, parser.prog)
            base, overrides = planned_settings(run)
            given_names = given_settings(run, base)
            with open_planner(base, overrides, given_names, lambda line: None, folder / "runs") as planner:
                console.print(planning_time(planner), highlight=False)
                for number, limit in enumerate(limits(planner, given.limits)):
                    if number < len(runs):
                        continue
                    runs.append(measure(planner, limit, flags, folder / str(number)))
                    if given.output:
                        given.output.write_text(json.dumps(runs, indent=1) + "\n")
        if runs:
            console.print(report(runs))

    return run_benchmark(command, argv)


def _flags(photos: Path, given: argparse.Namespace) -> list[str]:
    """The flags of a run on photos that are made."""
    for number in range(_IMAGES):
        path = photos / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (given.image_size, given.image_size, 3)
        pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    settings = {
        "dataset": "image_folder",
        "root": photos,
        "net_name": given.network,
        "image_size": given.image_size,
        "base_batch_size": given.batch_size,
        "device": "cpu",
        "n_epochs": 3,
        "base_lr": 0.01,
        "initial_epochs": 1,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


if __name__ == "__main__":
    sys.exit(main())
