"""phi: how similar every neuron's outputs are to those of the network before the epoch.

No outputs are kept between epochs. The values of what an epoch may change are kept instead, and afterwards
the old and the new network run over the same images, one chunk at a time: exact, and the memory does not
grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neq.neurons import NORMS, NeuronTable, Selection

# Name of a parameter or buffer -> (channels, their old values); all of it where channels is None.
PreviousValues = Mapping[str, tuple[Tensor | None, Tensor]]


def previous_values(network: nn.Module, table: NeuronTable, selection: Selection) -> PreviousValues:
    """Copies of all that an epoch can change ahead of a selectable neuron's output.

    Args:
        network: the plain network, before the epoch.
        table: its neurons.
        selection: what the epoch may update. Norm layers are kept whole, conv and Linear biases too; the
            head is not, since nothing selectable comes after it.
    """
    kept: dict[str, tuple[Tensor | None, Tensor]] = {}
    for name, channels in selection.items():
        module = network.get_submodule(name)
        assert isinstance(module.weight, Tensor)
        index = channels.to(module.weight.device)
        kept[f"{name}.weight"] = (channels, module.weight.detach()[index].clone())
    for layer in table.layers:
        bias = network.get_submodule(layer.name).bias
        if isinstance(bias, Tensor):
            kept[f"{layer.name}.bias"] = (None, bias.detach().clone())
    for name, module in network.named_modules():
        if isinstance(module, NORMS):
            for key, value in module.state_dict(keep_vars=False).items():
                kept[f"{name}.{key}"] = (None, value.clone())
    return kept


@torch.no_grad()
def similarity(
    network: nn.Module, table: NeuronTable, images: Tensor, previous: PreviousValues, chunk: int = 1
) -> Tensor:
    """phi of every neuron: the mean over images of the cosine between its old and its new output map.

    Outputs are taken raw from the conv or Linear, in eval mode. Two zero maps count as 1, one as 0.

    Args:
        network: the plain network, after the epoch; it is left as it was.
        table: its neurons.
        images: [n, channels, height, width], normalized, on the network's device.
        previous: what `previous_values` kept before the epoch.
        chunk: images run at once; the result does not depend on it.

    Returns:
        float64 [N], -1 .. 1.
    """
    old_values = _whole_tensors(network, previous)
    training = [module for module in network.modules() if module.training]
    total = torch.zeros(len(table), dtype=torch.float64)
    try:
        network.eval()
        for part in images.split(chunk):
            old_maps: dict[str, list[Tensor]] = {}

            def keep(name: str, output: Tensor, maps: dict[str, list[Tensor]] = old_maps) -> None:
                maps.setdefault(name, []).append(output.clone())  # what follows may work in place

            _run(network, table, lambda x: functional_call(network, old_values, (x,)), part, keep)
            sums = _Sums()

            def compare(
                name: str, output: Tensor, maps: dict[str, list[Tensor]] = old_maps, sums: _Sums = sums
            ) -> None:
                sums.add(name, maps[name].pop(0), output)

            _run(network, table, network, part, compare)
            for layer in table.layers:
                total[table.slice_of(layer.name)] += sums.cosine(layer.name).sum(0).cpu()
    finally:
        for module in training:
            module.training = True
    return total / len(images)


class _Sums:
    """Products of old and new maps, summed over space, by layer: float64 [images, neurons] each."""

    def __init__(self) -> None:
        self.by_layer: dict[str, list[Tensor]] = {}

    def add(self, name: str, old: Tensor, new: Tensor) -> None:
        a, b = _maps(old), _maps(new)
        products = [(a * b).sum(2), (a * a).sum(2), (b * b).sum(2)]
        earlier = self.by_layer.get(name)
        self.by_layer[name] = (
            products if earlier is None else [x + y for x, y in zip(earlier, products, strict=True)]
        )

    def cosine(self, name: str) -> Tensor:
        dot, old, new = self.by_layer[name]
        cosine = dot / (old.sqrt() * new.sqrt()).clamp_min(torch.finfo(torch.float64).tiny)
        return torch.where((old == 0) & (new == 0), 1.0, cosine)


def _maps(output: Tensor) -> Tensor:
    """An output as float64 [images, neurons, positions]; a Linear's features come last."""
    if output.dim() != 4:
        output = output.movedim(-1, 1)
    return output.double().flatten(2) if output.dim() > 2 else output.double().unsqueeze(2)


def _whole_tensors(network: nn.Module, previous: PreviousValues) -> dict[str, Tensor]:
    """The old network's tensors, whole, for all that was kept."""
    now = network.state_dict()
    whole = {}
    for name, (channels, values) in previous.items():
        if channels is None:
            whole[name] = values
        else:
            whole[name] = now[name].clone().index_copy_(0, channels.to(values.device), values)
    return whole


def _run(
    network: nn.Module,
    table: NeuronTable,
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    receive: Callable[[str, Tensor], None],
) -> None:
    """Runs the network and hands over every selectable layer's raw output."""

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
