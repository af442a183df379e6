"""Int8 networks by recipe: built again from their structure, without the file that they were read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from neq.int8.int8_file import put_together, taken_apart
from neq.int8.network import Int8Network
from neq.networks.recipe import Recipe, Transform, register_transform

# A recipe changes a network that has a name; this one is replaced.
_REPLACED = "mcunet-in0"
_TYPES = {"int8": torch.int8, "int32": torch.int32, "float32": torch.float32}


def described_recipe(network: Int8Network, classes: int) -> Recipe:
    """The recipe of an int8 network that no name stands for.

    Args:
        network: with its head.
        classes: outputs of its head.
    """
    structure, tensors = taken_apart(network.describe())
    shapes = {
        name: (str(each.dtype).removeprefix("torch."), tuple(each.shape)) for name, each in tensors.items()
    }
    transform = Transform("int8", {"structure": structure, "shapes": shapes}, __name__)
    return Recipe(_REPLACED, classes, network.head, (transform,))


@register_transform("int8")
def _rebuilt(
    network: nn.Module, structure: str, shapes: Mapping[str, tuple[str, Sequence[int]]]
) -> nn.Module:
    """An int8 network of a structure, in place of any; its codes are 0 and its scales 1."""
    return Int8Network(put_together(structure, {name: _blank(*each) for name, each in shapes.items()}))


def _blank(dtype: str, shape: Sequence[int]) -> Tensor:
    kind = _TYPES[dtype]
    return torch.ones(shape) if kind is torch.float32 else torch.zeros(shape, dtype=kind)
