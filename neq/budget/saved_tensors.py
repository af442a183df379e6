"""Forward passes over fake tensors, which have a shape, a type, a device and a layout, but no values."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from neq.backward.plan import Plan
from neq.budget.step_spec import StepSpec
from neq.networks.module_state import ModuleState
from neq.networks.neurons import NeuronTable, first_input
from neq.selection.gradients import detached
from neq.utils.errors import UserError, first_line
from neq.utils.eval_mode import eval_mode


def fake_copy(network: nn.Module) -> nn.Module:
    """A copy of a network whose tensors are fake: it takes no memory, and computing with it no time."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    memo: dict[int, object] = {
        id(p): nn.Parameter(mode.from_tensor(p.detach())) for p in network.parameters()
    }
    others = chain(network.buffers(), ModuleState(network).tensors)
    memo |= {id(tensor): mode.from_tensor(tensor.detach()) for tensor in others if id(tensor) not in memo}
    fake = copy.deepcopy(network, memo)
    for module in fake.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is None:
            module.momentum = 0.1  # an average over all batches would read how many there were
    return fake


@dataclass
class Kept:
    """What forward passes keep for backward.

    Args:
        free: storages that do not count: weights and the inputs of the network.
        storages: storage -> its bytes and the number of layers called, in that forward pass, before it was
            kept first.
        inputs: layer -> the number of layers called before it, and its input in each forward pass.
    """

    free: set[int] = field(default_factory=set)
    storages: dict[int, tuple[int, int]] = field(default_factory=dict)
    inputs: dict[str, tuple[int, list[Tensor]]] = field(default_factory=dict)
    _called: set[str] = field(default_factory=set)
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

    def begin_forward(self) -> None:
        """Another forward pass begins."""
        self._called.clear()

    def enter(self, name: str, x: Tensor) -> None:
        """Notes a layer's input, where it is called for the first time in this forward pass."""
        if name not in self._called:
            self.inputs.setdefault(name, (len(self._called), []))[1].append(x)
            self._called.add(name)

    def keeps(self, tensor: Tensor) -> bool:
        """Whether a tensor's storage is kept, or there anyway."""
        storage = tensor.untyped_storage()._cdata
        return storage in self.storages or storage in self.free

    def note(self, tensor: Tensor) -> Tensor:
        """Counts a tensor's storage once."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.storages and storage._cdata not in self.free:
            # Fake tensors have no addresses: storages are compared as objects, which must stay alive.
            self._alive.append(storage)
            self.storages[storage._cdata] = (storage.nbytes(), len(self._called))
        return tensor


class Notes(Protocol):
    """What takes note of tensors that are kept for backward; storages in `free` do not count."""

    free: set[int]

    def note(self, tensor: Tensor) -> Tensor:
        """Counts a tensor, and returns it."""


def kept_for_backward(plan: Plan, spec: StepSpec) -> Kept:
    """What the forward passes of a plan's step keep at the same time, weights and inputs apart.

    Args:
        plan: of a fake copy.
        spec: of the step.
    """
    kept = Kept()
    with fake_forwards(plan.network, plan.parameters(), spec, kept) as batches, _listening(plan, kept):
        for images in batches:
            kept.begin_forward()
            with precision_of(spec, images):
                plan(images)
    return kept


def kept_for_gradients(network: nn.Module, table: NeuronTable, spec: StepSpec) -> int:
    """Bytes that `batch_gradients` keeps for its backward pass, weights and inputs apart.

    Args:
        network: a fake copy.
        table: its neurons.
        spec: of the step whose loss is measured, without micro-batches.
    """
    kept, (weights, forward) = Kept(), detached(network, table)
    whole = replace(spec, micro_batch=None)
    with fake_forwards(network, weights.values(), whole, kept) as batches, eval_mode(network):
        for images in batches:
            with precision_of(spec, images):
                forward(images)
    return kept.bytes


@contextmanager
def fake_forwards(
    network: nn.Module, trained: Iterable[Tensor], spec: StepSpec, kept: Notes
) -> Iterator[list[Tensor]]:
    """Notes all that forward passes inside keep, and returns their inputs, by forward pass."""
    example = next(network.parameters())
    with example.fake_mode:  # type: ignore[attr-defined]
        batches = [
            torch.empty(
                (images, *spec.image_shape),
                device=example.device,
                dtype=example.dtype,
                memory_format=torch.channels_last,
            )
            for images in spec.kept_together
        ]
        free = chain(network.parameters(), network.buffers(), trained, batches)
        kept.free = {tensor.untyped_storage()._cdata for tensor in free}
        recorded = torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor)
        try:
            with _NormStatistics(), recorded:
                yield batches
        except UserError:
            raise
        except Exception as error:  # the network's own code on tensors without values: anything can happen
            raise UserError(
                f"the bytes that {type(network).__name__} keeps for backward cannot be counted, since its "
                f"forward fails on tensors without values ({first_line(error)}); take a budget in parameters "
                "or macs, or a network whose operations depend on shapes alone"
            ) from error


class _NormStatistics(TorchDispatchMode):
    """Norms' statistics in the widest type of what a norm reads, as it computes them.

    From fake tensors they come in the type of the map, which is narrower under autocast.
    """

    _NORMS = (
        torch.ops.aten.native_batch_norm.default,
        torch.ops.aten.native_layer_norm.default,
        torch.ops.aten.native_group_norm.default,
    )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func not in self._NORMS:
            return found
        types_read = {each.dtype for each in args if isinstance(each, Tensor)}
        if len(types_read) == 1:
            return found
        widest = reduce(torch.promote_types, types_read)
        out, *statistics = found
        return (out, *(each.to(widest) for each in statistics))


def precision_of(spec: StepSpec, images: Tensor) -> torch.autocast:
    """The autocast of one forward pass: the next one casts weights anew."""
    return torch.autocast(images.device.type, torch.bfloat16, enabled=spec.precision == "bf16")


@contextmanager
def _listening(plan: Plan, kept: Kept) -> Iterator[None]:
    """Notes every layer's input while the plan is called."""

    def listen(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept.enter(name, first_input(args, kwargs))

        return module.register_forward_pre_hook(hook, with_kwargs=True)

    handles = [listen(name, module) for name, module in plan.stand_ins.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
