"""What a network costs: parameters, multiply-accumulates, bytes, memory of inference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from neq.networks import neuron_table
from neq.results.best_network import BestNetwork
from neq.runs import load_run
from neq.utils.allocations import peak_bytes


@dataclass(frozen=True)
class Costs:
    """The costs of a network for one image.

    Args:
        parameters: values of all parameters.
        macs: multiply-accumulates of its convolutions, linear layers and attention.
        file_bytes: of its weights' file.
        inference_bytes: the most that torch's allocator holds during a forward pass, beside the weights.
    """

    parameters: int
    macs: int
    file_bytes: int
    inference_bytes: int


@torch.no_grad()
def costs(best: BestNetwork) -> Costs:
    """The costs of a run's best network, on the CPU.

    Args:
        best: the network, in the memory format of an evaluation or any other.
    """
    network, size = best.network.cpu(), best.image_size
    image = torch.zeros(1, 3, size, size)
    return Costs(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs_of(network, size),
        file_bytes=load_run(best.folder).best_weights.stat().st_size,
        inference_bytes=peak_bytes(lambda: network(image), torch.device("cpu")),
    )


@torch.no_grad()
def macs_of(network: nn.Module, image_size: int) -> int:
    """The multiply-accumulates of a network for one image: half of the operations that torch counts.

    Operations that it does not know, such as those of int8 networks, are counted by layer.

    Args:
        network: in eval mode, on the CPU.
        image_size: pixels a side.
    """
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, image_size, image_size))
    if counted := counter.get_total_flops() // 2:
        return counted
    table = neuron_table(network, (3, image_size, image_size))
    return table.total_macs + table.head_macs
