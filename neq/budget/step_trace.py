"""A training step without values, and which tensors are there at each moment of it.

Forward and backward of a plan run on fake tensors. Every storage that an operation makes counts from then on
until nothing refers to it, as in a step with values; what a convolution takes for itself meanwhile is noted
as the bytes of its weight. The step runs once, for REFERENCE images: bytes that are a multiple of its prime
grow with the images, others do not.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neq.backward.ghost_batch_norm import GhostBatches
from neq.backward.plan import Plan
from neq.backward.recompute import recompute_spec
from neq.budget.saved_tensors import fake_forwards, precision_of
from neq.budget.step_spec import StepSpec
from neq.networks.neurons import NeuronTable, Selection

# A prime that sizes of layers are no multiple of, and what packs bits without remainder.
_PRIME = 127
REFERENCE = 8 * _PRIME
# Channels that oneDNN lays out side by side.
_BLOCK = 16


class Size(NamedTuple):
    """Bytes of a step: fixed, of REFERENCE images, of one group of a ghost batch norm."""

    fixed: int = 0
    images: int = 0
    group: int = 0

    def plus(self, other: Size, times: int = 1) -> Size:
        """The sum, or the difference."""
        return Size(*(mine + times * its for mine, its in zip(self, other, strict=True)))

    def at(self, images: int, groups: int) -> int:
        """The bytes of a number of images and groups."""
        return self.fixed - (-self.images * images // REFERENCE) + self.group * groups


_NOTHING = Size()


class Moment(NamedTuple):
    """What is there while an operation runs.

    Args:
        size: of all tensors but those kept by units before and complete gradients.
        scratch: bytes of weights that a convolution works on.
        gradients: bytes of complete gradients.
        pointwise: bytes of weights that a 1x1 convolution works on, unless images are few
            (`neq.budget.scratch.copies_pointwise`).
    """

    size: Size
    scratch: int = 0
    gradients: int = 0
    pointwise: int = 0


@dataclass(frozen=True)
class Unit:
    """What happens between one point where a network can be cut and the next.

    Args:
        input: bytes of what passes from the unit before, 0 for the first one.
        made: whether a unit before keeps that for backward.
        read: whether this one or a later one does; read_if_cut: or does where the network is cut here.
        inner: bytes of all else that the unit keeps.
        gradients: bytes of the gradients that become complete in the unit's backward.
        forward, backward: its moments where the network is not cut before it.
        forward_cut, backward_cut: where it is; without its input.
        forward_bytes, backward_bytes: of all tensors that are made in it.
        layers: those called in it.
    """

    input: Size
    made: bool
    read: bool
    read_if_cut: bool
    inner: Size
    gradients: int
    forward: tuple[Moment, ...]
    backward: tuple[Moment, ...]
    forward_cut: tuple[Moment, ...]
    backward_cut: tuple[Moment, ...]
    forward_bytes: Size
    backward_bytes: Size
    layers: tuple[str, ...]


def trace_step(
    network: nn.Module, table: NeuronTable, selection: Selection, spec: StepSpec, cuts: Sequence[str]
) -> list[Unit]:
    """The units of one step of REFERENCE images.

    Args:
        network: a fake copy.
        table: its neurons.
        selection: layer name -> chosen channels.
        spec: of the step; neither batches nor segments of it count.
        cuts: all points where the network can be cut.
    """
    whole = replace(spec, forwards=(REFERENCE,), micro_batch=None, ghost_batch=None)
    watch = _Watch()
    one_group = None if spec.ghost_batch is None else _OneGroup(watch)
    plan = whole.plan(network, table, selection, one_group, cuts)
    if plan.segments is not None:
        plan.segments.listener = watch.begin
    with fake_forwards(network, plan.parameters(), whole, watch) as (images,), watch.watching(plan):
        with precision_of(whole, images):
            out = plan(images)
        watch.is_noting = False  # what a loss keeps is not the plan's
        loss = F.cross_entropy(out.float(), out.new_zeros(len(out), dtype=torch.long))
        del out
        watch.is_forward = False
        if loss.requires_grad:
            loss.backward()
    return watch.units()


@dataclass
class _Notes:
    """What is collected of a unit: its input's storage, size, and whether it is recomputed unless cut."""

    key: int = 0
    input: Size = _NOTHING
    is_recomputed: bool = False
    inner: Size = _NOTHING
    gradients: int = 0
    # Of tensors made, forward and backward.
    bytes: list[Size] = field(default_factory=lambda: [_NOTHING, _NOTHING])
    # Moments with all that is there, and whether the input is.
    forward: set[tuple[Moment, bool]] = field(default_factory=set)
    backward: set[tuple[Moment, bool]] = field(default_factory=set)
    layers: dict[str, None] = field(default_factory=dict)


class _Watch(TorchDispatchMode):
    """Follows the storages of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.free: set[int] = set()
        self.is_noting = self.is_forward = True
        self._notes, self._now = [_Notes()], 0
        self._held, self._done = _NOTHING, 0
        # Storages that are there: a number of each, since addresses are used again, and its size.
        self._numbers, self._sizes, self._count = dict[int, int](), dict[int, Size](), 0
        # Number of a storage that is kept for backward -> the units that keep it, and its size.
        self._keepers: dict[int, tuple[set[int], Size]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:  # half of all calls, and nothing is made
            return args[0].fake_device
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor):
                self._add(each.untyped_storage())
        notes = self._notes[self._now]
        there = self._held.plus(Size(self._done), -1).plus(_copied(func, args))
        weights, pointwise = _scratch(func, args)
        moment = Moment(there, weights, self._done, pointwise)
        moments = notes.forward if self.is_forward else notes.backward
        moments.add((moment, notes.key in self._sizes))
        return found

    def note(self, tensor: Tensor) -> Tensor:
        """Notes that a tensor is kept for backward."""
        if self.is_noting and tensor.untyped_storage()._cdata not in self.free:
            self._add(tensor.untyped_storage())
            key = self._key(tensor)
            self._keepers.setdefault(key, (set(), self._sizes[key]))[0].add(self._now)
        # A result itself could refer to what keeps it.
        return tensor if tensor.grad_fn is None else tensor.detach()

    def of_group(self, tensor: Tensor) -> None:
        """Notes that there are as many of a tensor as there are groups of images."""
        size = self._sizes[self._key(tensor)]
        self._sizes[self._key(tensor)] = grown = Size(group=sum(size))
        self._held = self._held.plus(size, -1).plus(grown)

    def begin(self, number: int, x: Tensor) -> None:
        """A unit begins."""
        if number == 0:
            return
        key, spec = self._key(x), recompute_spec(x)
        is_recomputed = spec is not None and all(self._key(each) != key for each in spec.kept)
        self._notes.append(_Notes(key, self._sizes[key], is_recomputed))
        self._now = number
        if x.requires_grad:
            x.register_hook(lambda _: setattr(self, "_now", number - 1))

    @contextmanager
    def watching(self, plan: Plan) -> Iterator[None]:
        """Follows what runs inside."""
        leaves = list(plan.parameters())
        with ExitStack() as stack:
            for leaf in leaves:
                stack.callback(leaf.register_post_accumulate_grad_hook(self._complete).remove)
            for name, module in plan.stand_ins.items():
                called = partial(self._called, name)
                stack.callback(module.register_forward_pre_hook(called).remove)
            stack.enter_context(self)
            yield
        for leaf in leaves:
            leaf.grad = None

    def units(self) -> list[Unit]:
        """What was followed."""
        nobody = set[int](), _NOTHING
        keepers = [self._keepers.pop(notes.key, nobody)[0] for notes in self._notes]
        for by, size in self._keepers.values():
            first = self._notes[min(by)]
            first.inner = first.inner.plus(size)
        found, before = [], _NOTHING
        for number, (notes, by) in enumerate(zip(self._notes, keepers, strict=True)):
            made, read = min(by, default=number) < number, max(by, default=-1) >= number
            with_input = before.plus(notes.input)
            uncut = with_input if made else before
            found.append(
                Unit(
                    notes.input,
                    made,
                    read,
                    read or notes.is_recomputed,
                    notes.inner,
                    notes.gradients,
                    _without(notes.forward, uncut),
                    _without(notes.backward, uncut),
                    _without(notes.forward, before, with_input),
                    _without(notes.backward, before, with_input),
                    notes.bytes[0],
                    notes.bytes[1],
                    tuple(notes.layers),
                )
            )
            before = (with_input if made or read else before).plus(notes.inner)
        return found

    def _called(self, name: str, *_: Any) -> None:
        self._notes[self._now].layers[name] = None

    def _complete(self, leaf: Tensor) -> None:
        assert leaf.grad is not None
        self._done += leaf.grad.nbytes
        self._notes[self._now].gradients += leaf.grad.nbytes

    def _key(self, tensor: Tensor) -> int:
        """The number of its storage; 0 where that was there before the step."""
        return self._numbers.get(tensor.untyped_storage()._cdata, 0)

    def _add(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address not in self._numbers and address not in self.free:
            self._count += 1
            self._numbers[address] = self._count
            self._sizes[self._count] = _size(storage.nbytes())
            self._held = self._held.plus(self._sizes[self._count])
            made = self._notes[self._now].bytes
            made[not self.is_forward] = made[not self.is_forward].plus(self._sizes[self._count])
            weakref.finalize(storage, self._remove, address)

    def _remove(self, address: int) -> None:
        self._held = self._held.plus(self._sizes.pop(self._numbers.pop(address)), -1)


def _without(
    moments: Iterable[tuple[Moment, bool]], other: Size, if_input: Size | None = None
) -> tuple[Moment, ...]:
    """The largest moments less what does not belong to a unit; `if_input`: that where its input is there."""
    return _largest(
        moment._replace(size=moment.size.plus(if_input if if_input and has_input else other, -1))
        for moment, has_input in moments
    )


def _largest(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """The moments that may be the largest for some number of images: no other is as large in everything."""
    found: list[Moment] = []
    for moment in sorted(set(moments), reverse=True):
        flat = (*moment.size, *moment[1:])
        others = ((*other.size, *other[1:]) for other in found)
        if not any(all(mine <= its for mine, its in zip(flat, other, strict=True)) for other in others):
            found.append(moment)
    return tuple(found)


class _OneGroup(GhostBatches):
    """All images as one group, whose statistics stand for those of each group."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__(REFERENCE)
        object.__setattr__(self, "_watch", watch)

    def norm(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """As `GhostBatches.norm`."""
        out, mean, invstd = super().norm(*args, **kwargs)
        for each in (mean, invstd):
            self._watch.of_group(each)  # type: ignore[attr-defined]
        return out, mean, invstd

    def by_image(self, values: Tensor, images: int) -> Tensor:
        """As `GhostBatches.by_image`, in fewer operations."""
        return values.expand(images, -1).clone()[:, :, None, None]


def _size(bytes_: int) -> Size:
    return Size(images=bytes_) if bytes_ % _PRIME == 0 else Size(bytes_)


def _copied(func: Any, args: tuple[Any, ...]) -> Size:
    """Bytes of the copies of its first argument that an operation of torch's works on."""
    is_copied = func in _COPYING and args[0].device.type == "cpu"
    return _size(args[0].numel() * args[0].element_size()) if is_copied else _NOTHING


_COPYING = {
    torch.ops.aten.native_batch_norm_backward.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}


def _scratch(func: Any, args: tuple[Any, ...]) -> tuple[int, int]:
    """Bytes of copies of its weight that an operation works on, always and unless images are few.

    A gradient of the weight works on one in the weight's own layout and one in blocks of channels, all else
    on one in blocks; what is no convolution on none.
    """
    aten = torch.ops.aten
    if func is aten.convolution_backward.default:
        x, weight, stride, groups, makes_weight = args[1], args[2], args[4], args[9], args[10][1]
    elif func is aten.convolution.default:
        x, weight, stride, groups, makes_weight = args[0], args[1], args[3], args[8], False
    else:
        return 0, 0
    is_plain = groups == 1 and set(weight.shape[2:]) == set(stride) == {1}
    is_pointwise = is_plain and x.device.type == "cpu" and x.dtype == torch.float32
    own = int(weight.numel()) * int(weight.element_size())
    out_channels, in_channels = len(weight) // groups, weight.shape[1]
    fits = all(k <= size for k, size in zip(weight.shape[2:], x.shape[2:], strict=True))
    if groups > 1 and (not makes_weight or (out_channels == in_channels == 1 and fits)):
        return own * (1 + makes_weight), 0  # groups are computed one by one
    in_blocks = own * _blocks(out_channels) * _blocks(in_channels) // (out_channels * in_channels)
    copies = in_blocks + own * makes_weight
    return (0, copies) if is_pointwise else (copies, 0)


def _blocks(channels: int) -> int:
    return -(-channels // _BLOCK) * _BLOCK
