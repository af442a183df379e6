"""What a step without values shows is what a step with values does."""

import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neq.budget import CostModel, StepSpec, step_trace
from neq.budget.step_trace import REFERENCE, Size
from neq.networks.neurons import neuron_table
from tests.toys import NETWORKS

SHAPE, IMAGES = (3, 32, 32), 8
# Of bitmasks: a step without values packs pieces of full length.
PIECES = 2**19


class Held(TorchDispatchMode):
    """The most bytes of all storages that are made inside, but for those of some tensors."""

    def __init__(self, free):
        super().__init__()
        self.most = self.bytes = 0
        self._seen = {each.untyped_storage()._cdata for each in free}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.bytes += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.bytes)
        return found

    def _gone(self, key, size):
        self._seen.discard(key)
        self.bytes -= size


def model_of(name, **settings):
    """The cost model of a real network and of a third of its neurons."""
    torch.manual_seed(0)
    network = NETWORKS[name](num_classes=5).to(memory_format=torch.channels_last)
    table = neuron_table(network, SHAPE)
    selection = {layer.name: torch.arange(0, layer.neurons, 3) for layer in table.layers}
    return CostModel(network, table, StepSpec((IMAGES,), SHAPE, **settings)), selection


def measured(model, selection, cuts=()):
    """The most bytes of tensors above what a step found."""
    network, spec = model.plain_network, model.spec
    plan = spec.plan(network, model.table, selection, cuts=cuts)
    images = torch.randn(spec.kept_together[0], *SHAPE).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(len(images), dtype=torch.long)
    with Held([*network.parameters(), *network.buffers(), *plan.parameters(), images, labels]) as held:
        for _ in range(spec.parts):
            F.cross_entropy(plan(images), labels).backward()
    return held.most


@pytest.fixture
def only_tensors(monkeypatch):
    """What an operation works on inside, which depends on the processor, does not count."""
    monkeypatch.setattr(step_trace, "_COPYING", set())


CASES = [
    ("mobilenet_v2", {"norm_mode": "train"}),
    ("mobilenet_v2", {"norm_mode": "frozen"}),
    ("mobilenet_v3_small", {"norm_mode": "frontier", "saved_precision": "bf16"}),
    ("mobilenet_v3_small", {"norm_mode": "frozen", "micro_batch": IMAGES // 2}),
    ("mcunet-in1", {"norm_mode": "train", "ghost_batch": IMAGES // 2}),
    ("resnet18", {"norm_mode": "train", "micro_batch": IMAGES // 2}),
    ("vit", {"norm_mode": "train"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_peak_and_kept_bytes_are_those_of_a_step(name, settings, only_tensors):
    model, selection = model_of(name, **settings)
    spec, profile = model.spec, model.profile(selection)
    assert profile.kept(spec.kept_together) == model.step(selection).saved_bytes
    assert profile.gradients == model.step(selection).gradient_bytes
    points = profile.names
    for cuts in {(), points[len(points) // 2 :][:1], points[2::4]}:
        found = profile.peak(spec.kept_together, cuts, spec.parts > 1, scratch=0)
        real = measured(model, selection, cuts)
        assert 0.99 * real <= found <= 1.02 * real + PIECES, (cuts, found / real)


def test_sizes_grow_with_images_and_groups():
    size = Size(5, 3 * REFERENCE, 7)
    assert size.at(2, 0) == 11
    assert size.at(2, 4) == 39
    assert Size(images=REFERENCE + 1).at(1, 0) == 2  # rounded up


def test_convolutions_work_on_copies_of_their_weight():
    model, selection = model_of("resnet18")
    profile = model.profile(selection)
    images = model.spec.kept_together
    none, one = (profile.peak(images, scratch=copies) for copies in (0, 1))
    assert none < one <= none + 2 * max(each.nbytes for each in model.plain_network.parameters())


def test_pointwise_convolutions_of_few_images_work_on_no_copies(monkeypatch):
    model, _ = model_of("mcunet-in1")
    table = model.table
    (last,) = [
        layer for layer in table.layers if layer.name == max(table.layers, key=lambda one: one.order).name
    ]
    profile = model.profile({last.name: torch.arange(last.neurons)})

    def copied(images, threads):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return profile.peak((images,), scratch=10) - profile.peak((images,), scratch=0)

    assert copied(16, 1) == copied(16, 4)
    assert copied(15, 1) < copied(15, 4)


@pytest.mark.slow
def test_the_trace_leaves_network_and_gradients_alone():
    model, selection = model_of("mcunet-in1")
    before = {name: value.clone() for name, value in model.plain_network.state_dict().items()}
    first = model.profile(selection)
    again = CostModel(model.plain_network, model.table, replace(model.spec)).profile(selection)
    assert first == again == model.profile(selection)
    assert all(each.grad is None for each in model.network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.plain_network.state_dict().items())
