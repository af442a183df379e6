"""What a network costs: parameters, multiply-accumulates, bytes, memory of inference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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

    MACs are half of the operations that torch's own counter counts. Operations that it does not know, such
    as those of int8 networks, are counted by layer.

    Args:
        best: the network, in the memory format of an evaluation or any other.
    """
    network, size = best.network.cpu(), best.image_size
    image = torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        network(image)
    macs = counter.get_total_flops() // 2
    if not macs:
        table = neuron_table(network, (3, size, size))
        macs = table.total_macs + table.head_macs
    return Costs(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs,
        file_bytes=load_run(best.folder).best_weights.stat().st_size,
        inference_bytes=peak_bytes(lambda: network(image), torch.device("cpu")),
    )
