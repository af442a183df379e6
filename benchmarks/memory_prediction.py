"""Predicted and measured memory of a run's steps, each case in a fresh process.

    python -m benchmarks.memory_prediction

Measured is how much four steps raise the most that the process ever held (on a CPU, after two steps of a few
images have loaded what libraries load), beside what `neq train --dry-run` predicts for the same tensors; on a
CPU with memory "fast" and "tight", and how much longer a step takes then.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.table import Table

from benchmarks.common import open_device, random_batch, run_benchmark
from neq.cli.parsing import Parser
from neq.config import dataset, resolve
from neq.data import open_data
from neq.experiment.network import open_network
from neq.tasks import Classification
from neq.training import Checkpoints, Progress, Training, choose_neurons, held_now, make_plan, predict
from neq.training.optimizer import make_optimizer
from neq.training.profiling import peak_memory
from neq.utils.console import Console
from neq.utils.errors import UserError

CASES: tuple[dict[str, object], ...] = (
    {"image_size": 48, "base_batch_size": 32},
    {"image_size": 48, "base_batch_size": 32, "norm_mode": "frozen", "ratio": 0.05},
    {"net_name": "mbv2", "image_size": 128, "base_batch_size": 16},
    {"net_name": "mbv2", "image_size": 128, "base_batch_size": 32},
    {"net_name": "mbv2", "image_size": 128, "base_batch_size": 32, "norm_mode": "frozen", "ratio": 0.05},
    {"net_name": "mbv2", "image_size": 128, "base_batch_size": 32, "norm_mode": "train", "ratio": 1},
)
BASE = {"dataset": "digits", "momentum": 0.9, "ratio": 0.3, "initialization": "random"}


def compare(settings: dict[str, object], device: torch.device) -> tuple[int, int, float]:
    """Bytes predicted and measured for a step, weights apart, in a process that did nothing before; seconds.

    Args:
        settings: of the run.
        device: to run on.
    """
    torch.set_num_threads(1)
    config = resolve({}, {**BASE, **settings}).config
    size, images = config.data_provider.image_size, config.data_provider.base_batch_size
    assert size is not None
    with (
        tempfile.TemporaryDirectory() as folder,
        open_data(config.data_provider, dataset("digits"), config.manual_seed, device) as data,
    ):
        network, table = open_network(config, len(data.classes))
        network.to(device).to(memory_format=torch.channels_last)
        run = Training(
            config, network, table, data, Classification(data, device), device, Checkpoints(Path(folder))
        )
        memory = replace(predict(run), before=0, measuring=0)  # of a step alone
        plan = make_plan(run, run.policy(0), choose_neurons(run, Progress(), 0).chosen)
        optimizer = make_optimizer(plan, config)

        def step(count: int) -> None:
            inputs, labels = random_batch(count, size, len(data.classes), device)
            F.cross_entropy(plan(inputs.to(memory_format=torch.channels_last)), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            plan.write_back()

        step(2)
        step(2)
        held = held_now(device)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            step(images)
            times.append(time.perf_counter() - start)
        measured, _ = peak_memory(device)
    return memory.step, measured - held, statistics.median(times)


def measure(settings: dict[str, object], device: str, memory: str) -> tuple[int, int, float]:
    """`compare` in a process of its own.

    Args:
        settings: of the run.
        device: cpu or cuda.
        memory: "fast" or "tight".
    """
    code = "from neq.utils.malloc import give_back_at_once; give_back_at_once(); " * (memory == "tight")
    code += "from benchmarks.memory_prediction import main; raise SystemExit(main())"
    asked = ["--device", device, "--case", json.dumps(settings)]
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1])
    predicted, measured, seconds = json.loads(done.stdout.splitlines()[-1])
    return predicted, measured, seconds


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        parser = Parser(prog="python -m benchmarks.memory_prediction", description=__doc__)
        parser.add_argument("--device", default="cpu", help="cpu or cuda")
        parser.add_argument("--case", type=json.loads, help="settings as JSON: only these, as JSON")
        given = parser.parse_args(arguments)
        if given.case is not None:
            print(json.dumps(compare(given.case, open_device(given.device))))
            return
        device = open_device(given.device)
        table = Table(title=f"a step's memory on {given.device}, MiB")
        ways = ("fast", "tight") if device.type == "cpu" else ("fast",)
        for name in ("settings", "predicted", *(f"{way}, ratio" for way in ways), "longer steps"):
            table.add_column(name)
        for case in CASES:
            found = [measure(case, given.device, way) for way in ways]
            predicted = found[0][0]
            shown = ", ".join(f"{name} {value}" for name, value in case.items())
            figures = [f"{taken / 2**20:.1f}, {taken / predicted:.2f}" for _, taken, _ in found]
            table.add_row(shown, f"{predicted / 2**20:.1f}", *figures, f"{found[-1][2] / found[0][2]:.2f}")
        Console().print(table)

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
