"""Predicted step times beside measured ones, for selections that the latency model has not seen.

OMP_NUM_THREADS=1 python -m benchmarks.latency --output latency.json
"""

from __future__ import annotations

import argparse
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
    machine,
    open_device,
    open_network,
    random_batch,
    run_benchmark,
    settle,
)
from benchmarks.selections import chooser
from neq.budget import CostModel, StepSpec, calibrate
from neq.budget.latency import measure
from neq.networks.neurons import NeuronTable, neuron_table
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

NETWORKS = (("mbv2", 128, 32), ("mcunet-in1", 128, 32))
NORM_MODES = ("frozen", "train")
# On mobilenet_v2 also the lists of SU; elsewhere layers as late and as many as those.
SELECTIONS = (*(f"random:{share}" for share in (0.05, 0.1, 0.2, 0.35, 0.5)), "late:0.2", "late:0.5")
CLASSES, ROUNDS = 10, 6


def compare(name: str, size: int, batch: int, norm_mode: str, device: torch.device) -> dict[str, Any]:
    """Calibrates on one kind of step, and measures held-out selections of it.

    Returns:
        seconds: that the calibration took; fitted_within: its largest relative error over its own steps;
            selections: by name, predicted_ms and measured_ms.
    """
    network = open_network(name, CLASSES).to(device, memory_format=torch.channels_last)
    settle(network, [random_batch(batch, size, CLASSES, device)[0]])
    table = neuron_table(network, (3, size, size))
    model = CostModel(network, table, StepSpec((batch,), (3, size, size), norm_mode))
    start = time.perf_counter()
    latency = calibrate(model, device)
    seconds = time.perf_counter() - start
    chosen = held_out(name, network, table)
    costs = latency.costs(model)
    measured = measure(model, list(chosen.values()), device, ROUNDS)
    return {
        "network": f"{name}, {size} px, batch {batch}, norms {norm_mode}",
        "seconds": seconds,
        "fitted_within": latency.error,
        "latency": latency.state(),
        "selections": {
            text: {"predicted_ms": costs.total(mask) / 1e6, "measured_ms": 1e3 * each}
            for (text, mask), each in zip(chosen.items(), measured, strict=True)
        },
    }


def held_out(name: str, network: nn.Module, table: NeuronTable) -> dict[str, Tensor]:
    """Selections that no calibration measures, bool [N]."""
    found = {text: chooser(text, name)(network, table).neurons for text in SELECTIONS}
    if name == "mbv2":
        return found | {"su1": chooser("su1", name)(network, table).neurons}
    layers = sorted(table.layers, key=lambda layer: layer.order)
    some = [layers[round(place * (len(layers) - 1))].name for place in (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1)]
    few = {
        layer: torch.arange(table.slice_of(layer).stop - table.slice_of(layer).start)[::2] for layer in some
    }
    return found | {"half of 7 late layers": table.mask(few)}


def show(report: dict[str, Any], console: Console) -> None:
    """Prints the comparison, a table for each kind of step."""
    for found in report["steps"]:
        table = Table(title=f"{found['network']}: calibrated in {found['seconds']:.0f} s")
        table.add_column("selection")
        for heading in ("predicted ms", "measured ms", "error"):
            table.add_column(heading, justify="right")
        for text, each in found["selections"].items():
            predicted, measured = each["predicted_ms"], each["measured_ms"]
            error = f"{predicted / measured - 1:+.1%}"
            table.add_row(text, f"{predicted:.1f}", f"{measured:.1f}", error)
        console.print(table)
    told = report["machine"]
    load = ", ".join(f"{each:.1f}" for each in report["load"])
    console.print(f"{told['cpu']}, {told['threads']} threads, torch {told['torch']}; load averages {load}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
        parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        parser.add_argument("--threads", type=at_least(1), default=1)
        parser.add_argument("--output", type=Path, help="a JSON file for the figures")
        options = parser.parse_args(arguments)
        if options.output is not None and not options.output.parent.is_dir():
            raise UserError(
                f"output {options.output} is no place for a file: give one in a folder that exists"
            )
        torch.set_num_threads(options.threads)
        device = open_device(options.device)
        steps, load = [], []
        for network in NETWORKS:
            for norm_mode in NORM_MODES:
                steps.append(compare(*network, norm_mode, device))
                load.append(os.getloadavg()[0])
        report = {"steps": steps, "load": load, "machine": machine(device)}
        show(report, Console())
        if options.output is not None:
            write_text(options.output, json.dumps(report, indent=2) + "\n")

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
