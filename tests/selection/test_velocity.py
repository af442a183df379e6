import copy
import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neq.backward import Plan
from neq.networks.neurons import neuron_table
from neq.selection import VelocityState, previous_values, similarity
from tests.toys import SHAPE, Toy, batch, toy

LAYERS = ("stem", "grouped", "depthwise", "pointwise", "hidden")


def stored_outputs(network, images):
    """Every raw output map of every selectable neuron, image by image, kept whole: float64 [N, images]."""
    network.eval()
    kept = []
    handles = [
        network.get_submodule(name).register_forward_hook(lambda m, i, o: kept.append(o.clone()))
        for name in LAYERS
    ]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return [
        [output[n, neuron].flatten().double() for n in range(len(images))]
        for output in kept
        for neuron in range(output.shape[1])
    ]


def literal_phi(old, new):
    """phi by its definition, with stored outputs."""
    result = []
    for maps_old, maps_new in zip(old, new, strict=True):
        total = 0.0
        for a, b in zip(maps_old, maps_new, strict=True):
            if not a.any() and not b.any():
                total += 1.0
            elif a.any() and b.any():
                total += float(a @ b / (a.norm() * b.norm()))
        result.append(total / len(maps_old))
    return torch.tensor(result, dtype=torch.float64)


def shake(network, selection, seed):
    """What an epoch does to a network: chosen rows, all norms and the head move."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, channels in selection.items():
            module = network.get_submodule(name)
            noise = torch.randn(module.weight.shape, generator=generator, dtype=module.weight.dtype)
            module.weight[channels] += 0.3 * noise[channels]
            if module.bias is not None:
                module.bias[channels] -= 0.1
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
        network.head.weight.mul_(0.5)


@pytest.mark.parametrize("chunk", [1, 4, 6])
def test_phi_equals_the_stored_outputs(chunk):
    network = toy()
    with torch.no_grad():
        network.stem.weight[2] = 0  # dead before and after
        network.pointwise.weight[5] = 0
        network.pointwise.bias[5] = 0  # dead before, alive after
    table = neuron_table(network, SHAPE)
    images, _ = batch()
    selection = {"stem": torch.tensor([0, 7]), "pointwise": torch.tensor([5, 6]), "hidden": torch.tensor([1])}
    old = stored_outputs(network, images)
    previous = previous_values(network, Plan(network, table, selection, "train").parts)
    shake(network, selection, 1)
    network.train()
    weights = copy.deepcopy(network.state_dict())
    phi = similarity(network, table, images, previous, chunk)
    assert network.training
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.allclose(phi, literal_phi(old, stored_outputs(network, images)), rtol=0, atol=1e-9)
    assert phi[2] == 1
    assert phi[table.slice_of("pointwise").start + 5] == 0


def test_what_has_not_changed_has_phi_of_exactly_one():
    network = toy(dtype=torch.float32)
    table = neuron_table(network, SHAPE)
    previous = previous_values(network, Plan(network, table, {}).parts)
    phi = similarity(network, table, batch(dtype=torch.float32)[0], previous)
    assert torch.equal(phi, torch.ones(84, dtype=torch.float64))


def test_linear_layers_in_any_arrangement():
    """[images, height, width, features], and windows of an image as a longer batch."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3, 12)
            self.windows = nn.Linear(12, 12)
            self.head = nn.Linear(12, 2)

        def forward(self, x):
            x = self.last(x.permute(0, 2, 3, 1)).tanh()
            x = self.windows(x.reshape(-1, 36, 12)).tanh()
            return self.head(x.reshape(-1, 144, 12).mean(1))

    network = Windows().double()
    table = neuron_table(network, SHAPE)
    previous = previous_values(network, Plan(network, table, {"windows": range(12)}).parts)
    with torch.no_grad():
        network.windows.weight[3] *= -1
        network.windows.bias[3] *= -1
    phi = similarity(network, table, batch()[0], previous, chunk=2)
    expected = torch.ones(24, dtype=torch.float64)
    expected[12 + 3] = -1
    assert torch.allclose(phi, expected, rtol=0, atol=1e-12)


def test_buffers_that_training_changes_are_kept():
    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("ema", torch.zeros(3, 1, 1, dtype=torch.float64))
            self.conv = nn.Conv2d(3, 4, 1).double()
            self.head = nn.Linear(4, 2).double()

        def forward(self, x):
            return self.head(self.conv(x - self.ema).mean((2, 3)))

    network = Average()
    table = neuron_table(network, SHAPE)
    previous = previous_values(network, Plan(network, table, {}).parts)
    network.ema.add_(5)
    assert similarity(network, table, batch()[0], previous).max() < 0.99


def test_outputs_are_taken_before_an_activation_in_place():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).double()
    table = neuron_table(network, SHAPE)
    images, _ = batch()
    with torch.no_grad():
        old = network[0](images)
        previous = previous_values(network, Plan(network, table, {"0": range(4)}).parts)
        network[0].weight.neg_()
        new = network[0](images)
    expected = torch.nn.functional.cosine_similarity(old.flatten(2), new.flatten(2), dim=2).mean(0)
    assert torch.allclose(similarity(network, table, images, previous), expected, rtol=0, atol=1e-12)


def test_memory_does_not_grow_with_the_number_of_images():
    """Fault 7: whole feature maps of the velocity set were kept."""
    network = toy()
    table = neuron_table(network, SHAPE)
    previous = previous_values(network, Plan(network, table, {"stem": [0]}).parts)
    alive = []

    def count(module, inputs, output):
        kinds = (torch.Tensor, torch.nn.Parameter)  # not the fake ones, which have no memory
        tensors = [found for found in gc.get_objects() if type(found) in kinds]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
        alive[-1] = max(alive[-1], sum(storage.nbytes() for storage in storages.values()))

    handle = network.hidden.register_forward_hook(count)
    gc.freeze()  # what there is already is not looked through again and again
    for images in (2, 9):
        given = batch(size=images)[0]
        gc.collect()
        alive.append(0)
        count(None, None, None)
        before = alive[-1]
        similarity(network, table, given, previous)
        alive[-1] -= before
        del given
    gc.unfreeze()
    handle.remove()
    assert alive[1] == alive[0]


def literal_velocities(phis, mu, rule):
    """Both rules as the sources write them, neuron by neuron; phi_{-1} = 1, v_{-1} = 0."""
    ranked = []
    for neuron in range(len(phis[0])):
        series = [1.0] + [float(phi[neuron]) for phi in phis]
        if rule == "published":
            v = 0.0
            for t in range(1, len(series)):
                v = (series[t] - series[t - 1]) - mu * v
            ranked.append(v)
        else:
            d_before, r_before = 0.0, 0.0
            for t in range(1, len(series)):
                d = (1 - series[t]) - (1 - series[t - 1])
                r = -(d - d_before - mu * r_before)
                d_before, r_before = d, r
            ranked.append(r_before)
    return torch.tensor(ranked, dtype=torch.float64)


@pytest.mark.parametrize("rule", ["published", "reference"])
@given(
    phis=st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=6),
    mu=st.floats(0, 0.99),
)
def test_both_rules_against_their_literal_computation(rule, phis, mu):
    phis = [torch.tensor(phi, dtype=torch.float64) for phi in phis]
    state = VelocityState.start(3)
    for phi in phis:
        state = state.after_epoch(phi, mu, rule)
    expected = literal_velocities(phis, mu, rule)
    assert torch.allclose(state.velocity.abs(), expected.abs(), rtol=1e-12, atol=1e-12)
    if rule == "published":
        assert torch.equal(state.velocity, state.memory)


@pytest.mark.parametrize("rule", ["published", "reference"])
def test_three_epochs_end_to_end_against_stored_outputs(rule):
    network = toy()
    table = neuron_table(network, SHAPE)
    images, _ = batch()
    state, phis = VelocityState.start(len(table)), []
    outputs = stored_outputs(network, images)
    for epoch in range(3):
        selection = table.selection(torch.rand(84, generator=torch.Generator().manual_seed(epoch)) < 0.4)
        previous = previous_values(network, Plan(network, table, selection, "train").parts)
        shake(network, selection, epoch)
        state = state.after_epoch(similarity(network, table, images, previous), 0.5, rule)
        now = stored_outputs(network, images)
        phis.append(literal_phi(outputs, now))
        outputs = now
    expected = literal_velocities(phis, 0.5, rule)
    assert torch.allclose(state.velocity.abs(), expected.abs(), rtol=0, atol=1e-9)
    assert expected.abs().max() > 1e-3


def test_shapes_of_a_toy_are_all_there():
    assert [layer.name for layer in neuron_table(Toy(), SHAPE).layers] == list(LAYERS)


@pytest.mark.parametrize("chunk", [1, 2, 4, 6])
def test_tokens_first_count_for_their_own_image(chunk):
    """[tokens, images, features], as torch's attention takes them: also where both are equally many."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head, self.steps = nn.Linear(36, 8), nn.Linear(8, 2), 0

        def forward(self, x):
            self.steps += 1
            x = self.mix(x.reshape(-1, 4, 36).transpose(0, 1)).tanh()
            return self.head(x.mean(0))

    torch.manual_seed(0)
    network = Tokens().double()
    images = torch.randn(6, 1, 12, 12).double()
    table = neuron_table(network, (1, 12, 12))
    old = network.mix(images.reshape(-1, 4, 36)).detach()
    previous = previous_values(network, Plan(network, table, {"mix": range(8)}).parts)
    with torch.no_grad():
        network.mix.weight.add_(0.3 * torch.randn(8, 36))
    new = network.mix(images.reshape(-1, 4, 36)).detach()
    expected = torch.nn.functional.cosine_similarity(old, new, dim=1).mean(0)
    assert torch.allclose(similarity(network, table, images, previous, chunk), expected, rtol=0, atol=1e-12)
    assert network.steps == 0
