import pytest
import torch
from torch import nn

from neq.compression import Compressed, add_attention
from neq.compression.attention import SqueezeExcitation, SubAttention, SubspaceAttention
from neq.networks.build import build_network
from neq.networks.recipe import named_recipe
from neq.utils.errors import UserError


def start_of(net_name="mcunet-in0"):
    network = build_network(net_name, 4, weights="none").eval()
    return Compressed(network, named_recipe(net_name, network, 4))


def test_squeeze_and_excitation_starts_as_the_identity():
    start, images = start_of(), torch.randn(2, 3, 48, 48)
    made = add_attention(start, images[:1], "se", ["blocks.1", "blocks.3"])
    with torch.no_grad():
        assert torch.equal(made.network(images), start.network(images))
    assert sum(p.numel() for p in made.network.parameters()) > sum(
        p.numel() for p in start.network.parameters()
    )


def test_squeeze_and_excitation_by_hand():
    block = SqueezeExcitation(1)
    with torch.no_grad():
        block.reduce.weight.fill_(2), block.reduce.bias.fill_(0)
        block.expand.weight.fill_(-0.5), block.expand.bias.fill_(1.5)
    x = torch.tensor([[[[1.0, 2.0]]]])  # mean 1.5: relu(3), -1.5 + 1.5 = 0, hardsigmoid(0) = 1/2
    assert torch.equal(block(x), x / 2)


@pytest.mark.parametrize(("order", "gate"), [(1, 0.188770334399), (2, 0.060561544239)])
def test_sub_attention_starts_at_the_published_gate(monkeypatch, order, gate):
    monkeypatch.setattr("neq.compression.attention._ORDER", order)
    block = SubAttention(4).double()
    x = torch.rand(2, 4, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(block(x), x * gate, rtol=1e-11, atol=0)


def test_subspace_attention_adds_a_softmax_over_positions():
    block = SubspaceAttention(8).double()
    x = torch.rand(2, 8, 5, 5, dtype=torch.float64) + 0.5
    ratio = block(x) / x - 1  # the attention, one map for each of 4 groups of 2 channels
    torch.testing.assert_close(ratio[:, 0::2], ratio[:, 1::2])
    torch.testing.assert_close(ratio.sum((2, 3)), torch.ones(2, 8, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["se", "ulsam", "lsas"])
def test_a_network_with_attention_is_built_again_by_its_recipe(kind):
    images = torch.randn(2, 3, 48, 48)
    made = add_attention(start_of(), images[:1], kind, ["blocks.2"])
    again = made.recipe.build().eval()
    again.load_state_dict(made.network.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images), made.network(images))


def test_unknown_kinds_and_layers_are_refused():
    image = torch.zeros(1, 3, 48, 48)
    with pytest.raises(UserError, match="'sa' is unknown"):
        add_attention(start_of(), image, "sa", ["blocks.1"])
    with pytest.raises(UserError, match=r"'blocks.99' is unknown"):
        add_attention(start_of(), image, "se", ["blocks.99"])
    with pytest.raises(UserError, match="has no output"):
        add_attention(start_of(), image, "se", ["classifier"])


def test_a_layer_that_is_not_called_is_refused():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.fc = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x.mean((2, 3)))

    start = start_of()
    with pytest.raises(UserError, match="layer unused has no output"):
        add_attention(Compressed(Unused(), start.recipe), torch.zeros(1, 3, 4, 4), "se", ["unused"])
