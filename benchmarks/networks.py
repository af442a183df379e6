"""What the selective backward saves in networks of torchvision and timm, by norm mode and selection.

    python -m benchmarks.networks --output networks.json
    python -m benchmarks.networks --output networks.json --table

Each network is written to the report when it has been measured, and left out where it is there already: an
interrupted benchmark goes on where it was. --table prints the report's table in Markdown.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from benchmarks.common import (
    TORCHVISION,
    at_least,
    machine,
    open_device,
    random_batch,
    run_benchmark,
    seconds,
    settle,
)
from benchmarks.networks_table import CELLS, tables
from benchmarks.selections import chooser
from benchmarks.training_step import CLASSES, cost_of, gradient_error
from benchmarks.variants import Task, Variant, channels_last, selective
from neq.backward.fusion import traced
from neq.cli.parsing import Parser
from neq.networks.neurons import NORMS, neuron_table
from neq.training.profiling import SavedBytes
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, first_line, shown

OF_TORCHVISION = (
    *("mobilenet_v2", "efficientnet_b0", "resnet18", "regnet_y_400mf", "mobilenet_v3_small", "mnasnet0_5"),
    *("densenet121", "shufflenet_v2_x0_5", "squeezenet1_1", "vgg11"),
)
OF_TIMM = (
    *("efficientnet_b0", "mobilenetv4_conv_small", "regnety_002", "convnext_atto", "vit_tiny_patch16_224"),
    *("swin_tiny_patch4_window7_224", "mobilenetv3_small_050", "ghostnet_100", "fasternet_t0", "resnet18"),
    *("resnet50_gn", "skresnet18", "rexnet_100", "repvgg_a0", "mobileone_s0", "tinynet_e", "lcnet_050"),
    *("hrnet_w18_small", "convnextv2_atto", "poolformer_s12", "edgenext_xx_small", "fastvit_t8"),
    *("mobilevit_xxs", "mobilevitv2_050", "tf_efficientnetv2_b0", "pvt_v2_b0", "mixer_s32_224", "levit_128s"),
    *("xcit_nano_12_p16_224", "deit_tiny_distilled_patch16_224"),
)
NETWORKS = (*(f"timm:{name}" for name in OF_TIMM), *(f"{TORCHVISION}{name}" for name in OF_TORCHVISION))
# Built for one image size.
SIZED = ("vit_", "deit_", "swin_", "mixer_", "levit_", "xcit_")


def open_network(name: str, image_size: int) -> nn.Module:
    """An untrained network of torchvision or timm, the same at every call.

    Args:
        name: with its library, as in NETWORKS.
        image_size: pixels a side.
    """
    library, _, plain = name.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if library == "timm":
            size: dict[str, Any] = {"img_size": image_size} if plain.startswith(SIZED) else {}
            network: nn.Module = timm.create_model(plain, num_classes=CLASSES, **size)
        else:
            network = torchvision.models.get_model(plain, num_classes=CLASSES)
    return network


def measure(name: str, image_size: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """One network's figures.

    Returns:
        network, norms (how many it has); fused (those that run in one function with a convolution; none
        where the network is not traced); cells: of each of CELLS its saved_bytes and their ratio to full
        training, time_ratio to full training in channels_last, and for a random selection predicted_bytes
        and gradient_error; machine.
    """
    torch.set_num_threads(1)
    device = open_device("cpu")
    network = open_network(name, image_size)
    shape = (batch_size, image_size, CLASSES, device)
    images, labels = random_batch(*shape)
    settle(network, [images, random_batch(*shape, number=1)[0]])
    table = neuron_table(network, (3, image_size, image_size))
    trace = traced(network, table)
    full = channels_last(Task(network, table, {}, (), "train", images, labels))
    whole = _kept(full)
    full.step()
    cells = []
    for norm, selection in CELLS:
        chosen = table.selection(chooser(selection, name)(network, table).neurons)
        task = Task(network, table, chosen, (), norm, images, labels)
        ours = selective(task)
        saved = _kept(ours)
        ours.step()
        ratios = []
        for _ in range(rounds):
            stock = seconds(full.step, device)
            ratios.append(seconds(ours.step, device) / stock)
        cell = {"norm": norm, "selection": selection, "saved_ratio": saved / whole, "saved_bytes": saved}
        if selection.startswith("random"):
            cell |= {"predicted_bytes": cost_of(task).saved_bytes, "gradient_error": gradient_error(task)}
        cells.append(cell | {"time_ratio": statistics.median(ratios)})
    return {
        "network": name,
        "norms": sum(isinstance(module, NORMS) for module in network.modules()),
        "fused": None if trace is None else sum(block.norm is not None for block in trace.blocks),
        "cells": cells,
        "machine": machine(device),
    }


def _kept(variant: Variant) -> int:
    """Bytes that the network's forward pass keeps for backward, the loss apart."""
    saved = SavedBytes([*variant.weights, variant.images])
    with saved.counting():
        variant.model(variant.images)
    return saved.total


class Report:
    """The figures so far, in one JSON file.

    Args:
        path: read if it exists.
        settings: of the measurement.

    Raises:
        UserError: a file that holds something else, or figures with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, int]) -> None:
        self.path, self.settings = path, settings
        self.networks: list[dict[str, Any]] = []
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found, self.networks = dict(content["settings"]), list(content["networks"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"output {shown(str(path))} holds no report of this benchmark") from error
        if found != settings:
            raise UserError(
                f"output {shown(str(path))} holds figures with {found}, here it is {settings}; "
                "give another --output"
            )

    def add(self, entry: dict[str, Any]) -> None:
        """Keeps a network's figures, on a line of their own."""
        self.networks.append(entry)
        lines = ",\n".join(json.dumps(network, allow_nan=False) for network in self.networks)
        write_text(self.path, f'{{"settings": {json.dumps(self.settings)}, "networks": [\n{lines}\n]}}\n')

    def missing(self, names: tuple[str, ...]) -> Iterator[str]:
        """Those of some networks that are not there."""
        known = {network["network"] for network in self.networks}
        return (name for name in names if name not in known)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        parser = Parser(prog="python -m benchmarks.networks", description=__doc__)
        parser.add_argument(
            "--networks", help="names separated by commas, such as timm:resnet18; default: all"
        )
        parser.add_argument("--image-size", type=at_least(1), default=64)
        parser.add_argument("--batch-size", type=at_least(2), default=8)
        parser.add_argument("--rounds", type=at_least(1), default=3)
        parser.add_argument("--output", type=Path, required=True, help="a JSON file for the report")
        parser.add_argument("--table", action="store_true", help="print the report's tables, measure nothing")
        given = parser.parse_args(arguments)
        names = tuple(given.networks.split(",")) if given.networks else NETWORKS
        settings = {"image_size": given.image_size, "batch_size": given.batch_size, "rounds": given.rounds}
        report = Report(given.output, settings)
        if given.table:
            print(tables(report.networks))
            return
        for name in report.missing(names):
            try:
                report.add(measure(name, **settings))
            except Exception as error:  # a library's network fails in its own way; others are still measured
                print(f"{name}: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
            else:
                print(name, flush=True)

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
