import collections
import copy
import enum
import functools
import threading

import pytest
import torch
from torch import nn

from neq.networks.module_state import ModuleState, unchanged


class Pool(enum.Enum):
    MEAN = 1
    MAX = 2


class Options:
    def __init__(self):
        self.kind, self.nested = "mean", {"size": 1}


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size):
        self.size = size


class Net(nn.Module):
    """A network that holds settings and records of every kind."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("mean", torch.zeros(4))
        self.steps, self.features, self.options = 0, [], Options()
        self.settings = {"blocks": [1, (2, {3})]}
        self.queue = collections.deque([1], maxlen=3)
        self.counts = collections.Counter("ab")
        self.pool, self.reduce = Pool.MEAN, functools.partial(torch.mean, dim=(2, 3))
        self.slotted = Slotted(1)
        self.lock, self.generator = threading.Lock(), torch.Generator()
        self.activation = torch.relu


CHANGES = {
    "number": lambda net: setattr(net, "steps", 1),
    "list": lambda net: net.features.append(net.conv.weight),
    "within": lambda net: net.settings["blocks"][1][1].add(4),
    "deque": lambda net: net.queue.append(2),
    "counter": lambda net: net.counts.update("c"),
    "object": lambda net: setattr(net.options, "kind", "max"),
    "in object": lambda net: net.options.nested.clear(),
    "enum": lambda net: setattr(net, "pool", Pool.MAX),
    "partial": lambda net: setattr(net, "reduce", functools.partial(torch.mean, dim=(3,))),
    "function": lambda net: setattr(net, "activation", torch.tanh),
    "new": lambda net: setattr(net, "more", 1),
    "gone": lambda net: delattr(net, "counts"),
    "buffer": lambda net: setattr(net, "mean", net.mean + 1),
    "module": lambda net: setattr(net, "conv", nn.Conv2d(3, 4, 1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed_and_undone(change):
    net = Net()
    before, mean = ModuleState(net).digest, net.mean
    assert before is not None
    with unchanged(net) as changed:
        assert not changed()
        change(net)
        assert changed()
    assert ModuleState(net).digest == before
    assert net.mean is mean


@pytest.mark.parametrize(
    "change",
    [lambda net: setattr(net.slotted, "size", 2), lambda net: net.conv.register_forward_hook(print)],
    ids=["slot", "hook"],
)
def test_slots_and_hooks_are_noticed(change):
    net = Net()
    before = ModuleState(net).digest
    change(net)
    assert ModuleState(net).digest != before


def test_values_of_buffers_are_restored_though_the_body_raises():
    net = Net()

    def run():
        with unchanged(net):
            net.mean.add_(1)
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert not net.mean.any()


def test_the_mode_is_no_change():
    net = Net().train()
    assert ModuleState(net).digest == ModuleState(net.eval()).digest


def test_all_tensors_are_found():
    net = Net()
    net.features.append({"map": net.conv.weight * 2})
    found = {id(tensor) for tensor in ModuleState(net).tensors}
    assert {id(net.mean), id(net.conv.weight), id(net.features[0]["map"])} <= found


def test_what_cannot_be_read_counts_as_changed():
    class Raises(dict):
        def copy(self):
            raise RuntimeError

    net = Net()
    net.odd = Raises()
    assert ModuleState(net).digest is None
    with unchanged(net) as changed:
        assert changed()


def test_copies_have_states_of_their_own():
    net = Net()
    net.lock = net.generator = None
    other = copy.deepcopy(net)
    with unchanged(net):
        other.features.append(1)
    assert other.features == [1]
