"""What measuring velocities costs: two networks over the same images, against storing every output.

python -m benchmarks.velocity --network mbv2 --image-size 224 --images 10,500
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
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
    peak_bytes,
    random_batch,
    run_benchmark,
    seconds,
    settle,
)
from neq.backward import Plan
from neq.budget.knapsack import MarginalCosts, fill_by_rank
from neq.cli.parsing import Parser
from neq.networks.neurons import NeuronTable, neuron_table
from neq.selection import previous_values, similarity
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

CLASSES = 10
CPU = torch.device("cpu")


@torch.no_grad()
def run(
    network: nn.Module, table: NeuronTable, images: Tensor, receive: Callable[[int, int, Tensor], None]
) -> None:
    """Runs one image after the other and hands over (image, layer, raw output [neurons, positions])."""
    number = 0
    handles = []
    for index, layer in enumerate(table.layers):

        def hand_over(module: nn.Module, inputs: object, output: Tensor, index: int = index) -> None:
            receive(number, index, output[0].flatten(1))

        handles.append(network.get_submodule(layer.name).register_forward_hook(hand_over))
    network.eval()
    for number, image in enumerate(images.split(1)):  # noqa: B007  (read by the hooks)
        network(image)
    for handle in handles:
        handle.remove()


def all_outputs(network: nn.Module, table: NeuronTable, images: Tensor) -> list[list[Tensor]]:
    """The raw output maps of every selectable layer, kept whole: by image and layer [neurons, positions]."""
    kept: list[list[Tensor]] = [[] for _ in images]
    run(network, table, images, lambda number, index, output: kept[number].append(output.clone()))
    return kept


def stored_similarity(
    network: nn.Module, table: NeuronTable, images: Tensor, old: list[list[Tensor]]
) -> Tensor:
    """phi by its definition, against outputs that were stored before the epoch: float64 [N]."""
    phi = torch.zeros(len(table), dtype=torch.float64)

    def compare(number: int, index: int, output: Tensor) -> None:
        a, b = old[number][index].double(), output.double()
        dot, aa, bb = (a * b).sum(1), (a * a).sum(1), (b * b).sum(1)
        cosine = dot / (aa * bb).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        both = torch.where((aa == 0) & (bb == 0), 1.0, cosine)
        phi[table.slice_of(table.layers[index].name)] += both.cpu()

    run(network, table, images, compare)
    return phi / len(images)


def measure(
    name: str, image_size: int, images: int, share: float, device: torch.device = CPU
) -> dict[str, Any]:
    """Both ways of measuring, on one network before and after one step of training.

    Args:
        name: of the network.
        image_size: pixels a side.
        images: velocity images.
        share: of the parameters that may be updated, as the selections that are compared.
        device: that measures.

    Returns:
        Seconds and peak bytes of each way, the outputs' size if stored, and whether both select the same set.
    """
    network = open_network(name, CLASSES).to(device).to(memory_format=torch.channels_last)
    batch, labels = random_batch(8, image_size, CLASSES, device)
    settle(network, [batch])
    table = neuron_table(network, (3, image_size, image_size))
    given = random_batch(images, image_size, CLASSES, device, number=2)[0]
    given = given.contiguous(memory_format=torch.channels_last)
    budget = round(share * table.total_parameters)
    everything = {layer.name: torch.arange(layer.neurons) for layer in table.layers}
    plan = Plan(network, table, everything, "train")
    previous = previous_values(network, plan.parts)
    stored: list[list[list[Tensor]]] = []
    storing = _cost(device, lambda: stored.append(all_outputs(network, table, given)))
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.05)
    nn.functional.cross_entropy(plan(batch), labels).backward()
    optimizer.step()
    plan.write_back()
    phis: list[Tensor] = []
    comparing = _cost(device, lambda: phis.append(stored_similarity(network, table, given, stored[0])))
    size = sum(output.nbytes for outputs in stored[0] for output in outputs)
    stored.clear()
    twice = _cost(device, lambda: phis.append(similarity(network, table, given, previous).cpu()))
    sets = [
        fill_by_rank((phi - 1).abs() / table.parameters, MarginalCosts.per_neuron(table.parameters), budget)
        for phi in phis
    ]
    return {
        "images": images,
        "stored_outputs_bytes": size,
        "storing": {"seconds": storing[0] + comparing[0], "peak_bytes": size + comparing[1]},
        "two_networks": {"seconds": twice[0], "peak_bytes": twice[1]},
        "kept_values_bytes": sum(values.nbytes for _, values in previous.values()),
        "largest_difference": float((phis[0] - phis[1]).abs().max()),
        "same_selection": bool(torch.equal(*sets)),
    }


def _cost(device: torch.device, call: Callable[[], object]) -> tuple[float, int]:
    """Seconds of a call, and the most memory it had allocated above what there was before."""
    peaks: list[int] = []
    return seconds(lambda: peaks.append(peak_bytes(call, device)), device), peaks[0]


def _print(reports: list[dict[str, Any]]) -> None:
    table = Table()
    for title in ("images", "way", "seconds", "peak MiB", "selected sets"):
        table.add_column(title, justify="left" if title == "way" else "right")
    for report in reports:
        equal = "equal" if report["same_selection"] else "DIFFERENT"
        for key, way in (("storing", "storing outputs"), ("two_networks", "two networks")):
            figures = report[key]
            peak = f"{figures['peak_bytes'] / 2**20:,.1f}"
            table.add_row(str(report["images"]), way, f"{figures['seconds']:.2f}", peak, equal)
    Console().print(table)


def main(argv: list[str]) -> None:
    """The benchmark's command."""
    parser = Parser(prog="python -m benchmarks.velocity", description=__doc__)
    parser.add_argument("--network", default="mbv2")
    parser.add_argument("--image-size", type=at_least(8), default=224)
    parser.add_argument("--images", default="10,500", help="numbers of velocity images, as 10,500")
    parser.add_argument("--threads", type=at_least(1), default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    try:
        counts = [int(count) for count in given.images.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UserError(
            f"--images {given.images!r} is not allowed; give whole numbers of 1 or more, as 10,500"
        )
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = open_device(given.device)
    reports = [measure(given.network, given.image_size, count, 0.0878, device) for count in counts]
    _print(reports)
    if given.output is not None:
        write_text(
            given.output, json.dumps({"reports": reports, "machine": machine(device)}, indent=1) + "\n"
        )


if __name__ == "__main__":
    sys.exit(run_benchmark(main))
