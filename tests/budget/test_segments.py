"""What a network in segments keeps, and the cuts at which it keeps least."""

import itertools
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neq.backward.fusion import traced
from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec
from neq.budget.segments import KeptBySegment, best_cuts, kept_by_segment, most_kept
from neq.config import POLICIES
from neq.networks.neurons import neuron_table
from neq.selection import SelectionState
from tests.toys import NETWORKS, toy

SHAPE, IMAGES = (3, 32, 32), 8


def joined(segments, cuts):
    """The segments between some of the cuts."""
    found, start = [], 0
    for end in (*cuts, len(segments)):
        part = segments[start:end]
        inner = sum(each.inner for each in part)
        inner += sum(each.input_bytes for each in part[1:] if each.reads_input)
        found.append(KeptBySegment(part[0].input_bytes, part[0].reads_input, inner))
        start = end
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_best_cuts_are_those_of_enumeration(seed):
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, 9, (7, 2), generator=draw).tolist()
    reads = torch.randint(0, 2, (7,), generator=draw).bool().tolist()
    segments = [
        KeptBySegment(b if number else 0, r, k)
        for number, ((b, k), r) in enumerate(zip(sizes, reads, strict=True))
    ]
    points = [f"point {number}" for number in range(1, 7)]
    for count in range(1, 8):
        found = [points.index(name) + 1 for name in best_cuts(points, segments, count)]
        assert found == sorted(found)
        assert len(found) < count
        least = min(
            most_kept(joined(segments, cuts))
            for parts in range(count)
            for cuts in itertools.combinations(range(1, 7), parts)
        )
        assert most_kept(joined(segments, found)) == least


def network_of(name):
    torch.manual_seed(0)
    network = NETWORKS[name](num_classes=5).to(memory_format=torch.channels_last)
    table = neuron_table(network, SHAPE)
    return network, table, {layer.name: torch.arange(0, layer.neurons, 3) for layer in table.layers}


class Held(TorchDispatchMode):
    """Counts the bytes of all storages that were made inside and are still there."""

    def __init__(self):
        super().__init__()
        self.bytes, self._seen = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.bytes += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return found

    def _gone(self, key, size):
        self._seen.discard(key)
        self.bytes -= size


@pytest.mark.slow
@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_what_is_there_after_forward_is_predicted(name, norm_mode):
    """The inputs of all segments, and what the last one keeps."""
    network, table, selection = network_of(name)
    images = torch.randn(IMAGES, *SHAPE).contiguous(memory_format=torch.channels_last)
    model = CostModel(network, table, StepSpec((IMAGES,), SHAPE, norm_mode, checkpoint_segments=4))
    cuts = model.cuts(selection)
    assert 0 < len(cuts) < 4
    fake = model.spec.plan(model.network, table, selection, cuts=cuts)
    (segments,) = kept_by_segment(fake, model.spec)
    expected = segments[-1].inner + sum(
        each.held(number == len(segments) - 1) for number, each in enumerate(segments)
    )
    plan = model.spec.plan(network, table, selection, cuts=cuts)
    with Held() as held:
        loss = plan(images).sum()
        # Weights and images are seen as views; the output and the sum are not for backward.
        seen = {id(each): each for each in (*network.parameters(), *plan.parameters(), *network.buffers())}
        own = sum(each.nbytes for each in seen.values()) + images.nbytes
        assert expected <= held.bytes <= expected + own + 4096
        loss.backward()
    assert model.step(selection).saved_bytes == most_kept(segments)


@pytest.mark.slow
def test_segments_keep_less_and_more_of_them_never_more():
    network, table, selection = network_of("resnet18")
    kept = [
        CostModel(network, table, StepSpec((IMAGES,), SHAPE, "train", checkpoint_segments=count))
        .step(selection)
        .saved_bytes
        for count in (1, 2, 4, 99)
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[2] < 0.5 * kept[0]


def test_given_cuts_are_used():
    network, table, selection = network_of("resnet18")
    spec = StepSpec((IMAGES,), SHAPE, "train", checkpoint_cuts=("layer2.0.conv1",))
    model = CostModel(network, table, spec)
    assert model.cuts(selection) == ("layer2.0.conv1",)
    assert (
        model.step(selection).saved_bytes
        < CostModel(network, table, StepSpec((IMAGES,), SHAPE, "train")).step(selection).saved_bytes
    )


def test_what_cannot_be_traced_is_left_in_one_piece():
    network, table, selection = network_of("resnet18")
    network.register_forward_hook(lambda *_: None)
    assert traced(network, table) is None
    assert CostModel(network, table, StepSpec((IMAGES,), SHAPE, checkpoint_segments=4)).cuts(selection) == ()


def test_a_budget_in_bytes_holds_and_admits_more():
    network = toy(dtype=torch.float32)
    table = neuron_table(network, SHAPE)
    chosen = {}
    limit = (
        CostModel(network, table, StepSpec((IMAGES,), SHAPE, "frozen"))
        .step(table.selection(torch.ones(len(table), dtype=torch.bool)))
        .training_bytes
        // 2
    )
    for count in (1, 4):
        model = CostModel(network, table, StepSpec((IMAGES,), SHAPE, "frozen", checkpoint_segments=count))
        allocator = BudgetAllocator(model, Budget("bytes", amount=limit))
        state = SelectionState(table, network, torch.Generator().manual_seed(0))
        found = allocator.choose(POLICIES["random"], state)
        assert model.step(table.selection(found.chosen)).training_bytes == found.used <= limit
        chosen[count] = int(found.chosen.sum())
    assert chosen[4] > chosen[1]
