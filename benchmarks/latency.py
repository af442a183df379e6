"""Predicted step times beside measured ones, for selections that the latency model has not seen.

OMP_NUM_THREADS=1 python -m benchmarks.latency --output latency.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.common import (
    at_least,
    check_output,
    machine,
    open_device,
    open_network,
    random_batch,
    run_benchmark,
    settle,
)
from benchmarks.selections import chooser
from neq.budget import CostModel, Latency, StepSpec
from neq.budget.latency import Amounts, calibration_selections, measure
from neq.networks.neurons import NeuronTable, neuron_table
from neq.utils.atomic_files import write_text

NETWORKS = (("mbv2", 128, 32), ("mcunet-in1", 128, 32))
NORM_MODES = ("frozen", "train")
# And on mobilenet_v2 the lists of SU, elsewhere half of the neurons in as many late layers.
SELECTIONS = (*(f"random:{share}" for share in (0.05, 0.1, 0.2, 0.35, 0.5)), "late:0.2", "late:0.5")
CLASSES = 10


def compare(name: str, size: int, batch: int, norm_mode: str, device: torch.device) -> dict[str, Any]:
    """Fits the model to the calibration's selections, and compares it with held-out ones.

    Both are measured in the same rounds: a busy machine slows steps by a third from one minute to the next,
    which no model predicts.

    Returns:
        seconds: that measuring took; latency: the model; selections: held-out ones by name, predicted_ms and
            measured_ms.
    """
    network = open_network(name, CLASSES).to(device).to(memory_format=torch.channels_last)
    settle(network, [random_batch(batch, size, CLASSES, device)[0]])
    table = neuron_table(network, (3, size, size))
    model = CostModel(network, table, StepSpec((batch,), (3, size, size), norm_mode))
    chosen, fitted = held_out(name, network, table), calibration_selections(table)
    start = time.perf_counter()
    measured = measure(model, [*fitted, *chosen.values()], device)
    seconds = time.perf_counter() - start
    amounts = Amounts.of_model(model)
    latency = Latency.fit(torch.stack([amounts.of(each) for each in fitted]), measured[: len(fitted)])
    times = latency.times(model)
    return {
        "network": f"{name}, {size} px, batch {batch}, norms {norm_mode}",
        "seconds": seconds,
        "latency": latency.state(),
        "selections": {
            text: {"predicted_ms": times.of(mask) / 1e6, "measured_ms": 1e3 * each}
            for (text, mask), each in zip(chosen.items(), measured[len(fitted) :], strict=True)
        },
    }


def held_out(name: str, network: nn.Module, table: NeuronTable) -> dict[str, Tensor]:
    """Selections that no calibration measures, bool [N]."""
    found = {text: chooser(text, name)(network, table).neurons for text in SELECTIONS}
    if name == "mbv2":
        return found | {"su1": chooser("su1", name)(network, table).neurons}
    layers = sorted(table.layers, key=lambda layer: layer.order)
    late = layers[round(0.7 * len(layers)) :: 2][:7]
    half = {layer.name: torch.arange(0, layer.neurons, 2) for layer in late}
    return found | {"half of 7 late layers": table.mask(half)}


def show(found: dict[str, Any], console: Console) -> None:
    """Prints the comparison of one kind of step."""
    table = Table(title=f"{found['network']}: measured in {found['seconds']:.0f} s")
    table.add_column("selection")
    for heading in ("predicted ms", "measured ms", "error"):
        table.add_column(heading, justify="right")
    for text, each in found["selections"].items():
        predicted, measured = each["predicted_ms"], each["measured_ms"]
        table.add_row(text, f"{predicted:.1f}", f"{measured:.1f}", f"{predicted / measured - 1:+.1%}")
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
        parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        parser.add_argument("--threads", type=at_least(1), default=1)
        parser.add_argument("--output", type=Path, help="a JSON file for the figures")
        options = parser.parse_args(arguments)
        if options.output is not None:
            check_output(options.output)
        torch.set_num_threads(options.threads)
        device = open_device(options.device)
        console, found = Console(), machine(device)
        steps: list[dict[str, Any]] = []
        load: list[float] = []
        for norm_mode, network in itertools.product(NORM_MODES, reversed(NETWORKS)):
            steps.append(compare(*network, norm_mode, device))
            show(steps[-1], console)
            load.append(os.getloadavg()[0])
        report = {"steps": steps, "load": load, "machine": found}
        console.print(
            f"{found['device']}, {found['cpu']}, {found['threads']} threads, torch {found['torch']}; "
            f"load averages {', '.join(f'{each:.1f}' for each in load)}"
        )
        if options.output is not None:
            write_text(options.output, json.dumps(report, indent=2) + "\n")

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
