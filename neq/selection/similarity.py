"""Similarity of every neuron's outputs to those of the network before the epoch.

With y_t the output map of a neuron for one image after epoch t,

    phi_t = mean over images of <y_t, y_{t-1}> / (|y_t| |y_{t-1}|)

No outputs are stored between epochs. The values that an epoch may change are stored instead, and afterwards
the old and the new network run over the same images, one chunk at a time: exact, and the memory does not
grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neq.networks.layer_kinds import LayerKind
from neq.networks.module_state import unchanged
from neq.networks.neurons import NeuronTable
from neq.networks.parameter_slice import ParameterSlice, named_tensor
from neq.utils.eval_mode import eval_mode

# Name of a parameter or buffer -> which part of it was kept, and its values.
PreviousValues = Mapping[str, tuple[ParameterSlice, Tensor]]


def previous_values(network: nn.Module, parts: Mapping[str, ParameterSlice]) -> PreviousValues:
    """Copies of all values that an epoch can change.

    Args:
        network: the plain network, before the epoch.
        parts: the parameters that the epoch trains, and which part of each. Buffers are copied whole.
    """
    kept = {name: (part, part.take(named_tensor(network, name).detach())) for name, part in parts.items()}
    return {name: (ParameterSlice(), buffer.clone()) for name, buffer in network.named_buffers()} | kept


@torch.no_grad()
def similarity(
    network: nn.Module, table: NeuronTable, images: Tensor, previous: PreviousValues, chunk: int = 1
) -> Tensor:
    """phi of every neuron: the mean over images of the cosine between its old and its new output map.

    Outputs are the raw ones of conv or Linear, in eval mode. Two zero maps count as 1, a single one as 0.

    Args:
        network: the plain network, after the epoch; it is left as it was.
        table: its neurons.
        images: [n, channels, height, width], normalized, on the network's device; n may be 0 on one of
            several ranks, and phi is then 0.
        previous: as `previous_values` returned it before the epoch.
        chunk: images run at once, where every layer's output has one row an image; the result does not
            depend on it. Layers of tokens may mix the images of a chunk: they are run one at a time.

    Returns:
        float64 [N], -1 .. 1.
    """
    old_values = _whole_tensors(network, previous)
    total = torch.zeros(len(table), dtype=torch.float64)
    with eval_mode(network), unchanged(network):
        for start in range(0, len(images), chunk):
            part = images[start : start + chunk]
            old_maps: dict[str, list[Tensor]] = {}

            def keep(name: str, output: Tensor, maps: dict[str, list[Tensor]] = old_maps) -> None:
                maps.setdefault(name, []).append(output.clone())  # what follows may work in place

            _run(network, table, lambda x: functional_call(network, old_values, (x,)), part, keep)
            kinds = {layer.name: layer.kind for layer in table.layers}
            if len(part) > 1 and not all(
                len(output) == len(part) and (kinds[name].is_conv or output.dim() == 2)
                for name, outputs in old_maps.items()
                for output in outputs
            ):
                return similarity(network, table, images, previous)
            sums = _Sums(len(part), kinds)

            def compare(
                name: str, output: Tensor, maps: dict[str, list[Tensor]] = old_maps, sums: _Sums = sums
            ) -> None:
                sums.add(name, maps[name].pop(0), output)

            _run(network, table, network, part, compare)
            for layer in table.layers:
                total[table.slice_of(layer.name)] += sums.cosine(layer.name).sum(0).cpu()
    return total / max(1, len(images))


class _Sums:
    """Products of old and new maps, summed over space, by layer: float64 [images, neurons] each."""

    def __init__(self, images: int, kinds: Mapping[str, LayerKind]) -> None:
        self._images, self._kinds = images, kinds
        self.by_layer: dict[str, list[Tensor]] = {}

    def add(self, name: str, old: Tensor, new: Tensor) -> None:
        a, b = (_maps(output, self._images, self._kinds[name]) for output in (old, new))
        products = [(a * b).sum(1), (a * a).sum(1), (b * b).sum(1)]
        earlier = self.by_layer.get(name)
        self.by_layer[name] = (
            products if earlier is None else [x + y for x, y in zip(earlier, products, strict=True)]
        )

    def cosine(self, name: str) -> Tensor:
        dot, old, new = self.by_layer[name]
        # The root of the product, not the product of roots: exactly 1 where nothing has changed.
        cosine = dot / (old * new).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        return torch.where((old == 0) & (new == 0), 1.0, cosine)


def _maps(output: Tensor, images: int, kind: LayerKind) -> Tensor:
    """An output as float64 [images, positions, neurons].

    A Linear's features come last, and whatever it cuts an image into (windows, tokens) are positions.
    """
    output = kind.neurons_last(output)
    return output.double().reshape(images, -1, output.shape[-1])


def _whole_tensors(network: nn.Module, previous: PreviousValues) -> dict[str, Tensor]:
    """The old network's tensors, whole."""
    now = network.state_dict()
    whole = {}
    for name, (part, values) in previous.items():
        whole[name] = values if part.is_whole else part.put(now[name].clone(), values)
    return whole


def _run(
    network: nn.Module,
    table: NeuronTable,
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    receive: Callable[[str, Tensor], None],
) -> None:
    """Runs the network and passes every selectable layer's raw output to `receive`."""

    def hook(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: receive(name, output)

    handles = [
        network.get_submodule(layer.name).register_forward_hook(hook(layer.name)) for layer in table.layers
    ]
    try:
        forward(images)
    finally:
        for handle in handles:
            handle.remove()
