"""The peak of a step from its profile, and the cuts that lower it most."""

import itertools

import pytest
import torch

from neq.backward.fusion import traced
from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec
from neq.budget.peak import StepProfile
from neq.budget.step_trace import REFERENCE, Moment, Size, Unit
from neq.config import POLICIES
from neq.networks.neurons import neuron_table
from neq.selection import SelectionState
from tests.toys import NETWORKS, toy

SHAPE, IMAGES = (3, 32, 32), 8


def profile_of(seed, units=7):
    """A profile of random sizes, of which the first units may have no backward."""
    draw = torch.Generator().manual_seed(seed)
    frozen = seed % 3

    def size():
        return Size(images=REFERENCE * int(torch.randint(1, 20, (), generator=draw)))

    def unit(number):
        trains = number >= frozen
        forward = (Moment(size()),)
        backward = (Moment(size(), gradients=2 * units - 2 * number),) if trains else ()
        made, read = (bool(each) and trains for each in torch.randint(0, 2, (2,), generator=draw))
        sizes = size() if number else Size(), made and number > frozen, read, read
        kept = size() if trains else Size()
        return Unit(*sizes, kept, 2 * trains, forward, backward, forward, backward, Size(), Size(), ())

    names = tuple(f"point {number}" for number in range(1, units))
    return StepProfile(tuple(map(unit, range(units))), names, None, 0, (1,) * units, (2,) * units)


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_best_cuts_are_those_of_enumeration(seed, accumulates):
    profile = profile_of(seed)
    for count in range(1, 8):
        found = profile.best_cuts(IMAGES, count, accumulates)
        assert len(found) < count
        peaks = {
            cuts: profile.peak((IMAGES,), cuts, accumulates)
            for parts in range(count)
            for cuts in itertools.combinations(profile.names, parts)
        }
        assert peaks[found] == min(peaks.values())


def test_only_allowed_points_are_cut():
    profile = profile_of(1)
    points = profile.names[::2]
    found = profile.best_cuts(IMAGES, 7, points=points)
    assert set(found) <= set(points)
    assert profile.best_cuts(IMAGES, 7, points=()) == ()


def test_the_formula_by_hand():
    """Two units that train: maps of 10 bytes an image, of which each keeps its input and 4 more."""

    def there(count, gradients=0):
        return (Moment(images(count), 0, gradients),)

    def images(count):
        return Size(images=count * REFERENCE)

    backward, made = there(24, 50), (images(1), images(2), ())
    first = Unit(Size(), *(False,) * 3, images(4), 100, there(14), backward, there(14), backward, *made)
    sizes = images(10), False, True, True, images(4), 50
    second = Unit(*sizes, there(24), there(34), there(14), there(24), *made)
    profile = StepProfile((first, second), ("second",), None, 0, (3, 5), (6, 10))
    # Backward of the second unit: 4 kept by the first and 34; of the first: 24 and the second's gradients.
    assert profile.peak((1,)) == max(4 + 24, 4 + 34, 24 + 50)
    assert profile.peak((100,)) == 100 * (4 + 34)
    assert profile.peak((100,), accumulates=True) == 100 * (4 + 34) + 150
    # In segments: the second's backward beside its input; the first again, beside its result's gradient.
    assert profile.peak((100,), ("second",)) == max(100 * (10 + 24), 100 * (14 + 10) + 50, 100 * 24 + 50)
    # A second forward pass: the first one's maps stay, and then all gradients are there.
    assert profile.peak((100, 100)) == max(100 * (4 + 34) + 150, 100 * (4 + 10 + 4) + 100 * (4 + 34))
    assert profile.kept((100,)) == 100 * (4 + 10 + 4)
    assert profile.kept((100,), ("second",)) == 100 * (10 + 4)
    assert profile.work((2,), ("second",)) == (16, 32, 6, 2 * (3 + 3 + 1))


def network_of(name):
    torch.manual_seed(0)
    network = NETWORKS[name](num_classes=5).to(memory_format=torch.channels_last)
    table = neuron_table(network, SHAPE)
    return network, table, {layer.name: torch.arange(0, layer.neurons, 3) for layer in table.layers}


@pytest.mark.slow
def test_more_segments_never_have_a_higher_peak():
    network, table, selection = network_of("mobilenet_v2")
    profile = CostModel(network, table, StepSpec((IMAGES,), SHAPE, "train")).profile(selection)
    cuts = [profile.best_cuts(IMAGES, count) for count in (1, 2, 4, 99)]
    peaks = [profile.peak((IMAGES,), each) for each in cuts]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[2] < 0.8 * peaks[0]
    assert profile.work((IMAGES,), cuts[0]).again == 0 < profile.work((IMAGES,), cuts[1]).again
    frozen = profile.work((IMAGES,), profile.names)
    assert frozen.again < frozen.forward  # the last segment runs once


def test_given_cuts_are_used():
    network, table, selection = network_of("resnet18")
    spec = StepSpec((IMAGES,), SHAPE, "train", checkpoint_cuts=("layer2.0.conv1",))
    model = CostModel(network, table, spec)
    assert model.cuts(selection) == ("layer2.0.conv1",)
    cut, whole = model.step(selection), CostModel(network, table, StepSpec((IMAGES,), SHAPE, "train"))
    assert cut.saved_bytes < whole.step(selection).saved_bytes


def test_what_cannot_be_traced_is_left_in_one_piece():
    network, table, selection = network_of("resnet18")
    network.register_forward_hook(lambda *_: None)
    assert traced(network, table) is None
    model = CostModel(network, table, StepSpec((IMAGES,), SHAPE, checkpoint_segments=4))
    assert model.cuts(selection) == ()
    assert model.profile(selection).kept((IMAGES,)) == model.step(selection).saved_bytes


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
