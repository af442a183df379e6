"""What a plan's training step costs, without taking one.

Operations are counted in closed form. What is kept for backward is counted on the meta device: one forward
pass of the plan over tensors that have shapes but no values, exact for every norm mode. Only attention keeps
different things on different devices: a network that has it takes that one pass on its own device.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from neq.neurons import NeuronTable, Selection
from neq.selective.plan import Plan

# Values of state that an optimizer keeps for each value that trains.
STATE_PER_VALUE = {"sgd": 0, "sgd with momentum": 1, "adam": 2, "adamw": 2}


@dataclass(frozen=True)
class StepCost:
    """One training step of a plan.

    Args:
        parameters: weights of selectable neurons that train.
        values: everything that trains: those, biases, norms and head.
        forward_macs: multiply-accumulates of the selectable layers' forward pass, for the batch.
        input_gradient_macs: of their input gradients.
        weight_gradient_macs: of the chosen neurons' weight gradients.
        saved_bytes: kept from forward for backward, weights and the caller's input apart.
        gradient_bytes: of all that trains.
        optimizer_bytes: of the optimizer's state for all that trains.
    """

    parameters: int
    values: int
    forward_macs: int
    input_gradient_macs: int
    weight_gradient_macs: int
    saved_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates of the step."""
        return self.forward_macs + self.input_gradient_macs + self.weight_gradient_macs

    @property
    def training_bytes(self) -> int:
        """What training needs beside the weights and the input: saved, gradients, optimizer state."""
        return self.saved_bytes + self.gradient_bytes + self.optimizer_bytes


def step_cost(
    network: nn.Module,
    table: NeuronTable,
    selection: Selection,
    norm_mode: str,
    input_shape: tuple[int, int, int, int],
    optimizer: str = "sgd with momentum",
    bias_layers: Collection[str] = (),
) -> StepCost:
    """The cost of one training step, from shapes alone.

    Args:
        network: the plain network; it is left as it was.
        table: its neurons.
        selection: layer name -> chosen channels.
        norm_mode: of the plan.
        input_shape: of a batch: images, channels, height, width; in channels_last.
        optimizer: a key of STATE_PER_VALUE.
        bias_layers: as for the plan.
    """
    shadow = copy.deepcopy(network)
    if not any("attention" in type(module).__name__.lower() for module in network.modules()):
        shadow.to("meta")
    plan = Plan(shadow, table, selection, norm_mode, bias_layers)
    saved = _saved_bytes(plan, input_shape)
    trained = plan.trained_values()
    values = sum(trained.values())
    width = next(shadow.parameters()).element_size()
    chosen = table.mask(plan.selection)
    images = input_shape[0]
    return StepCost(
        parameters=trained["weights"],
        values=values,
        forward_macs=images * table.total_macs,
        input_gradient_macs=images * sum(input_gradient_macs(table, plan.selection, norm_mode).values()),
        weight_gradient_macs=images * int(table.macs[chosen].sum()),
        saved_bytes=saved,
        gradient_bytes=width * values,
        optimizer_bytes=width * values * STATE_PER_VALUE[optimizer],
    )


def input_gradient_macs(table: NeuronTable, selection: Selection, norm_mode: str) -> dict[str, int]:
    """Multiply-accumulates of each layer's input gradient for one image, by layer.

    A layer passes a gradient on if something before it trains: a chosen layer, or, where all norms train,
    any norm.
    """
    chosen = [layer.order for layer in table.layers if layer.name in selection]
    starts = chosen + (list(table.norm_order.values()) if norm_mode == "train" else [])
    start = min(starts, default=float("inf"))
    return {layer.name: layer.neurons * layer.macs if layer.order > start else 0 for layer in table.layers}


def _saved_bytes(plan: Plan, input_shape: tuple[int, int, int, int]) -> int:
    """The storages that one forward pass keeps for backward."""
    example = next(plan.network.parameters())
    images = torch.empty(
        input_shape, device=example.device, dtype=example.dtype, memory_format=torch.channels_last
    )
    weights = chain(plan.network.parameters(), plan.network.buffers(), plan.parameters(), [images])
    # Meta tensors have no addresses: their storages are told apart as objects, which must stay alive.
    excluded = {tensor.untyped_storage()._cdata for tensor in weights}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in excluded:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        plan(images)
    return sum(storage.nbytes() for storage in kept.values())
