"""How well what a plan is chosen by is predicted: the peak memory and the time of a step.

    OMP_NUM_THREADS=1 python -m benchmarks.planning --output benchmarks/planning.json

Peaks are those of torch's allocations above what a step found. Times are those that the processor worked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console

from benchmarks.common import (
    at_least,
    check_output,
    machine,
    open_network,
    peak_bytes,
    random_batch,
    run_benchmark,
    settle,
)
from neq.backward import Plan
from neq.budget import CostModel, StepSpec
from neq.budget.latency import measure
from neq.budget.scratch import measure_scratch
from neq.budget.step_time import calibrate_step_time, work_of_step
from neq.networks.neurons import NeuronTable, Selection, neuron_table
from neq.utils.atomic_files import write_text

CLASSES = 10
CPU = torch.device("cpu")
# Network, pixels, batch, micro-batch, norm mode.
STEPS = (
    ("mbv2", 64, 32, 32, "train"),
    ("mbv2", 96, 8, 8, "frozen"),
    ("mbv2", 224, 4, 2, "train"),
    ("torchvision:resnet18", 64, 32, 32, "train"),
    ("torchvision:resnet18", 128, 8, 4, "frozen"),
    ("torchvision:resnext50_32x4d", 64, 8, 8, "train"),
    ("torchvision:resnext50_32x4d", 128, 4, 2, "frozen"),
    ("timm:mobilevit_xxs", 64, 16, 8, "train"),
    ("timm:mobilevit_xxs", 128, 4, 2, "frozen"),
)
SEGMENTS = (1, 4)
# Network, pixels, batch; in norm mode train.
TIMED = (
    ("mbv2", 64, 16),
    ("torchvision:resnet18", 64, 16),
    ("torchvision:resnext50_32x4d", 64, 8),
    ("timm:mobilevit_xxs", 64, 16),
)
MOST_SEGMENTS = 3


def selections(table: NeuronTable) -> Iterator[tuple[str, Selection]]:
    """Kinds of selections of a network."""
    layers = sorted(table.layers, key=lambda layer: layer.order)
    draw = torch.Generator().manual_seed(0)
    late, few = layers[len(layers) // 2 :], layers[round(0.7 * len(layers)) :: 2][:7]
    yield "all", {layer.name: torch.arange(layer.neurons) for layer in layers}
    yield "last half", {layer.name: torch.arange(layer.neurons) for layer in late}
    yield "half of 7 late layers", {layer.name: torch.arange(0, layer.neurons, 2) for layer in few}
    yield (
        "random 10 %",
        {
            layer.name: torch.randperm(layer.neurons, generator=draw)[: -(-layer.neurons // 10)].sort().values
            for layer in layers
        },
    )


def peaks(device: torch.device, scratch: float) -> Iterator[dict[str, Any]]:
    """Part 1: predicted and measured peaks of a step's tensors, one dictionary a cell."""
    for name, size, batch, micro, norm_mode in STEPS:
        network = open_network(name, CLASSES).to(device).to(memory_format=torch.channels_last)
        settle(network, [random_batch(8, size, CLASSES, device)[0]])
        table = neuron_table(network, (3, size, size))
        spec = StepSpec((batch,), (3, size, size), norm_mode, micro_batch=micro)
        model = CostModel(network, table, spec)
        for text, selection in selections(table):
            profile, seen = model.profile(selection), set[tuple[str, ...]]()
            for count in SEGMENTS:
                most = spec.kept_together[0], count, spec.parts > 1, scratch
                cuts = profile.best_cuts(*most, points=model.cut_points)
                if cuts in seen:
                    continue
                seen.add(cuts)
                predicted = profile.peak(spec.kept_together, cuts, spec.parts > 1, scratch)
                measured = peak_bytes(
                    _step(spec.plan(network, table, selection, cuts=cuts), spec, device), device
                )
                yield {
                    "network": name,
                    "pixels": size,
                    "batch": batch,
                    "micro_batch": micro,
                    "norm_mode": norm_mode,
                    "selection": text,
                    "cuts": list(cuts),
                    "predicted": predicted,
                    "measured": measured,
                }


def times(device: torch.device) -> Iterator[dict[str, Any]]:
    """Predicted and measured times of steps: whole, in two micro-batches, in segments, by what trains."""
    for name, size, batch in TIMED:
        network = open_network(name, CLASSES).to(device).to(memory_format=torch.channels_last)
        table = neuron_table(network, (3, size, size))
        whole = StepSpec((batch,), (3, size, size), "train")
        fitted = calibrate_step_time(network, table, whole, device)
        for how, spec in _ways(CostModel(network, table, whole)):
            model = CostModel(network, table, spec)
            for text, selection in selections(table):
                chosen = table.mask(selection)
                (seconds,) = measure(model, [chosen], device)
                yield {
                    "network": name,
                    "step": how,
                    "selection": text,
                    "predicted": fitted.seconds(*work_of_step(model, chosen)),
                    "measured": seconds,
                }


def _ways(model: CostModel) -> Iterator[tuple[str, StepSpec]]:
    """Ways to take a step, each with a name."""
    spec = model.spec
    yield "whole", spec
    yield "two micro-batches", replace(spec, micro_batch=spec.batch_size // 2)
    if model.cut_points:
        yield f"{MOST_SEGMENTS} segments", replace(spec, checkpoint_segments=MOST_SEGMENTS)


def _step(plan: Plan, spec: StepSpec, device: torch.device) -> Callable[[], None]:
    """Forward and backward of a batch, after one that loads what libraries load; no gradient is there."""
    images, labels = random_batch(spec.batch_size, spec.image_shape[1], CLASSES, device)
    images, count = images.contiguous(memory_format=torch.channels_last), spec.kept_together[0]

    def step() -> None:
        for part, classes in zip(images.split(count), labels.split(count), strict=True):
            F.cross_entropy(plan(part), classes).backward()

    step()
    for parameter in plan.parameters():
        parameter.grad = None
    return step


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each network: cells, and the least, median and greatest ratio of predicted to measured."""
    found = []
    for name in dict.fromkeys(cell["network"] for cell in cells):
        ratios = sorted(cell["predicted"] / cell["measured"] for cell in cells if cell["network"] == name)
        middle = ratios[len(ratios) // 2]
        found.append(
            {"network": name, "cells": len(ratios), "least": ratios[0], "median": middle, "most": ratios[-1]}
        )
    return found


def markdown(cells: list[dict[str, Any]]) -> str:
    """The table of docs/planning.md."""
    lines = ["| network | cells | least | median | greatest |", "|---|---|---|---|---|"]
    lines += [
        f"| {each['network'].rpartition(':')[2]} | {each['cells']} | {each['least']:.3f} | "
        f"{each['median']:.3f} | {each['most']:.3f} |"
        for each in summary(cells)
    ]
    return "\n".join(lines)


def times_markdown(cells: list[dict[str, Any]]) -> str:
    """The table of times in docs/planning.md."""
    lines = [
        "| network | steps | least | median | greatest | within .80 to 1.20 |",
        "|---|---|---|---|---|---|",
    ]
    for each in summary(cells):
        ratios = [
            cell["predicted"] / cell["measured"] for cell in cells if cell["network"] == each["network"]
        ]
        within = sum(0.8 <= ratio <= 1.2 for ratio in ratios)
        figures = " | ".join(f"{each[name]:.2f}" for name in ("least", "median", "most"))
        lines.append(f"| {each['network'].rpartition(':')[2]} | {len(ratios)} | {figures} | {within} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
        parser.add_argument("--threads", type=at_least(1), default=1)
        parser.add_argument("--output", type=Path, help="a JSON file for the figures")
        options = parser.parse_args(arguments)
        if options.output is not None:
            check_output(options.output)
        torch.set_num_threads(options.threads)
        scratch = measure_scratch(CPU)
        cells, steps = list(peaks(CPU, scratch)), list(times(CPU))
        Console().print(markdown(cells), times_markdown(steps), sep="\n\n", markup=False)
        if options.output is not None:
            report = {"machine": machine(CPU), "scratch": scratch, "peaks": cells, "times": steps}
            write_text(options.output, json.dumps(report, indent=1) + "\n")

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
