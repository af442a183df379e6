"""A forward pass over shapes: fake tensors have a shape, a type, a device and a layout, but no values."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from neq.backward.plan import Plan


def fake_copy(network: nn.Module) -> nn.Module:
    """A copy of a network whose tensors are fake: it takes no memory, and computing with it no time."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    memo: dict[int, object] = {
        id(p): nn.Parameter(mode.from_tensor(p.detach())) for p in network.parameters()
    }
    memo |= {id(buffer): mode.from_tensor(buffer) for buffer in network.buffers()}
    fake = copy.deepcopy(network, memo)
    for module in fake.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is None:
            module.momentum = 0.1  # an average over all batches would read how many there were
    return fake


@dataclass
class Kept:
    """What a forward pass keeps for backward.

    Args:
        free: storages that do not count: weights and the input.
        storages: storage -> its bytes and the number of layers called before it was kept first.
        inputs: layer -> the number of layers called before it, and its input.
    """

    free: set[int] = field(default_factory=set)
    storages: dict[int, tuple[int, int]] = field(default_factory=dict)
    inputs: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    _alive: list[torch.UntypedStorage] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all storages."""
        return sum(size for size, _ in self.storages.values())

    def bytes_by_layer(self) -> dict[str, int]:
        """Kept first by each layer and what follows it up to the next one."""
        names = {position: name for name, (position, _) in self.inputs.items()}
        found: dict[str, int] = {}
        for size, first in self.storages.values():
            if first:
                found[names[first - 1]] = found.get(names[first - 1], 0) + size
        return found

    def bytes_from(self, position: int) -> int:
        """Of the storages that were kept first by the layer of that number or later."""
        return sum(size for size, first in self.storages.values() if first > position)

    def keeps(self, tensor: Tensor) -> bool:
        """Whether a tensor's storage is kept, or there anyway."""
        storage = tensor.untyped_storage()._cdata
        return storage in self.storages or storage in self.free

    def note(self, tensor: Tensor) -> Tensor:
        """Counts a tensor's storage once."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.storages and storage._cdata not in self.free:
            # Fake tensors have no addresses: storages are told apart as objects, which must stay alive.
            self._alive.append(storage)
            self.storages[storage._cdata] = (storage.nbytes(), len(self.inputs))
        return tensor


def kept_for_backward(plan: Plan, input_shape: tuple[int, int, int, int], precision: str) -> Kept:
    """What one forward pass of a plan keeps, weights and the input apart.

    Args:
        plan: of a fake copy.
        input_shape: of a batch: images, channels, height, width; in channels_last.
        precision: "fp32", or "bf16" for autocast.
    """
    example = next(plan.network.parameters())
    mode = example.fake_mode  # type: ignore[attr-defined]
    kept = Kept()
    with mode:
        images = torch.empty(
            input_shape, device=example.device, dtype=example.dtype, memory_format=torch.channels_last
        )
        weights = chain(plan.network.parameters(), plan.network.buffers(), plan.parameters(), [images])
        kept.free = {tensor.untyped_storage()._cdata for tensor in weights}
        autocast = torch.autocast(example.device.type, torch.bfloat16, enabled=precision == "bf16")
        with (
            torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor),
            autocast,
            _listening(plan, kept),
        ):
            plan(images)
    return kept


@contextmanager
def _listening(plan: Plan, kept: Kept) -> Iterator[None]:
    """Notes every layer's input while the plan is called."""

    def listen(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            kept.inputs.setdefault(name, (len(kept.inputs), inputs[0]))

        return module.register_forward_pre_hook(hook)

    handles = [listen(name, module) for name, module in plan.stand_ins.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
