"""The FLOP floor: what a selective step must compute at the least."""

from __future__ import annotations

from torch import nn

from benchmarks.variants import Task
from neq.neurons import NeuronTable
from neq.selective import trained_parts


def floor(task: Task) -> float:
    """The multiply-accumulates that the selective step cannot do without, as a share of a full step's.

    Forward passes, input gradients of the layers called after the earliest that trains, and weight gradients
    of what is chosen; a full step is three forward passes less the first layer's input gradient. The table's
    layers and the head count, what is not a layer (attention, say) does not.
    """
    table = task.table
    order, macs = _layers(task.network, table)
    first = min(order, key=order.__getitem__)
    if task.norm_mode == "train":
        earliest = first
    else:
        parts = trained_parts(task.network, table, task.selection, task.norm_mode, task.bias_layers)
        owners = {name.rpartition(".")[0] for name in parts}
        norm = {layer.name: layer.norm for layer in table.layers}
        earliest = min(
            (name for name in order if name in owners or norm.get(name) in owners), key=order.__getitem__
        )
    forward = sum(macs.values())
    inputs = sum(macs[name] for name in order if order[name] > order[earliest])
    weights = int(table.macs[table.mask(task.selection)].sum()) + macs[table.head]
    return (forward + inputs + weights) / (3 * forward - macs[first])


def _layers(network: nn.Module, table: NeuronTable) -> tuple[dict[str, float], dict[str, int]]:
    """Position in the order of calls, and forward MACs of an image, of each layer and the head."""
    order: dict[str, float] = {layer.name: layer.order for layer in table.layers}
    macs = {layer.name: layer.neurons * layer.macs for layer in table.layers}
    return order | {table.head: float("inf")}, macs | {
        table.head: network.get_submodule(table.head).get_parameter("weight").numel()
    }
