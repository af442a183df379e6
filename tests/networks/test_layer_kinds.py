import pytest
import torch
from torch import nn

from neq.networks import layer_kinds
from neq.networks.layer_kinds import CONV, LINEAR, ByteWidths, LayerKind, layer_kind, register_layer_kind
from neq.networks.parameter_slice import ParameterSlice


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(layer_kinds, "_kinds", dict(layer_kinds._kinds))


class Transposed(LayerKind):
    name = "transposed"

    def matches(self, module):
        return type(module) is nn.ConvTranspose2d


def test_convolutions_and_linear_layers_are_told_apart_by_their_forward():
    class Subclass(nn.Conv2d):
        pass

    class Other(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    assert layer_kind(nn.Conv2d(3, 4, 1)) is CONV
    assert layer_kind(Subclass(3, 4, 1)) is CONV
    assert layer_kind(Other(3, 4, 1)) is None
    assert layer_kind(nn.Linear(3, 4)) is LINEAR
    assert layer_kind(nn.ConvTranspose2d(3, 4, 1)) is None


@pytest.mark.parametrize(
    ("module", "output", "groups", "counts"),
    [
        (nn.Conv2d(6, 8, 3), (1, 8, 5, 5), 1, {"neuron": (8, 54), "input_channel": (6, 72)}),
        (nn.Conv2d(6, 8, 3, groups=2), (1, 8, 5, 5), 2, {"neuron": (8, 27), "input_channel": (8, 27)}),
        (nn.Linear(6, 8), (1, 25, 8), 1, {"neuron": (8, 6), "input_channel": (6, 8)}),
    ],
)
def test_neurons_and_their_costs(module, output, groups, counts):
    kind = layer_kind(module)
    assert kind.groups(module) == groups
    for unit, expected in counts.items():
        axis = kind.axis(module, unit)
        assert (kind.neurons(module, axis), kind.parameters(module, axis)) == expected
    assert kind.macs(module, torch.empty(output)) == module.weight.numel() * 25
    assert kind.neurons_last(torch.empty(output)).shape[-1] == 8
    assert kind.widths(module) == ByteWidths(4, 4)
    assert kind.widths(module.double()) == ByteWidths(8, 8)


def test_slices_are_read_and_written():
    module = nn.Linear(3, 4)
    part = ParameterSlice(torch.tensor([0, 2]))
    values = CONV.take(module, part)
    assert torch.equal(values, module.weight[[0, 2]])
    with torch.no_grad():
        CONV.put(module, part, values + 1)
    assert torch.equal(module.weight[[0, 2]], values + 1)


def test_a_registered_kind_is_found():
    register_layer_kind(kind := Transposed())
    register_layer_kind(kind)  # once more changes nothing
    assert layer_kind(nn.ConvTranspose2d(3, 4, 1)) is kind


def test_a_name_is_registered_once():
    register_layer_kind(Transposed())
    with pytest.raises(
        ValueError, match="'transposed' is registered already; give the new kind another name"
    ):
        register_layer_kind(Transposed())
