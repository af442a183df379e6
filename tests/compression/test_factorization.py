import pytest
import torch
from torch import nn

from neq.compression import Compressed, low_rank
from neq.networks.build import build_network
from neq.networks.recipe import Recipe, named_recipe
from neq.utils.errors import UserError

pytest.importorskip("tensorly")


def start_of(*layers):
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).eval()
    return Compressed(network, Recipe("toy", 2, str(len(layers) + 2)))


def weights(network):
    return sum(p.numel() for name, p in network.named_parameters() if name.startswith("0."))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(16, 8, 1, stride=2), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 8, (5, 3), (2, 1), (2, 1))],
)
@pytest.mark.parametrize("dense", ["tucker2", "cp"])
def test_factors_have_at_most_the_share_and_the_same_output_shape(layer, share, dense):
    start = start_of(layer)
    made = low_rank(start, share, dense)
    assert weights(made.network) - 8 <= share * layer.weight.numel()
    images = torch.randn(2, 16, 9, 9)
    assert made.network[0](images).shape == layer(images).shape
    assert torch.equal(made.network[0][-1].bias, layer.bias)
    assert torch.equal(made.network[-1].weight, start.network[-1].weight)


def product(kind, factors):
    """The layer whose weights are exactly a product of small ones."""
    layer = nn.Conv2d(16, 8, 1 if kind == "svd" else 3, padding=0 if kind == "svd" else 1)
    with torch.no_grad():
        layer.weight.copy_(factors)
    return layer


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("svd", torch.einsum("or,ri->oi", torch.randn(8, 2), torch.randn(2, 16))[:, :, None, None]),
        (
            "tucker2",
            torch.einsum("op,pqkl,iq->oikl", torch.randn(8, 2), torch.randn(2, 2, 3, 3), torch.randn(16, 2)),
        ),
        (
            "cp",
            torch.einsum("or,ir,kr,lr->oikl", *(torch.randn(n, 1) for n in (8, 16, 3, 3))),
        ),
    ],
)
def test_a_layer_of_that_rank_computes_the_same(kind, weight):
    start = start_of(product(kind, weight))
    made = low_rank(start, 0.6, "tucker2" if kind == "svd" else kind)
    images = torch.randn(2, 16, 7, 7)
    with torch.no_grad():
        expected = start.network[0](images)
        torch.testing.assert_close(
            made.network[0](images), expected, rtol=1e-3, atol=1e-3 * expected.abs().max()
        )


def test_the_energy_that_is_left_is_that_of_the_largest_singular_values():
    layer = nn.Linear(12, 8)
    start = Compressed(nn.Sequential(layer, nn.Linear(8, 2)).eval(), Recipe("toy", 2, "1"))
    made = low_rank(start, 0.7)
    rank = made.network[0][0].out_features
    assert rank == int(0.7 * 96 / 20)
    values = torch.linalg.svdvals(layer.weight)
    error = (layer.weight - made.network[0][1].weight @ made.network[0][0].weight).square().sum()
    torch.testing.assert_close(error, values[rank:].square().sum())


def test_depthwise_convs_and_the_head_stay():
    network = build_network("mcunet-in0", 4, weights="none").eval()
    made = low_rank(Compressed(network, named_recipe("mcunet-in0", network, 4)), 0.5)
    names = {name for transform in made.recipe.transforms for name in transform.arguments["layers"]}
    assert names
    assert "classifier" not in names
    assert all(network.get_submodule(name).groups == 1 for name in names)
    again = made.recipe.build().eval()
    again.load_state_dict(made.network.state_dict())
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(again(images), made.network(images))


def test_no_layer_that_can_be_factorized_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"no layer can be factorized to a share of 0\.01"):
        low_rank(start_of(nn.Conv2d(16, 8, 1)), 0.01)
    with pytest.raises(UserError, match="no layer can be factorized"):
        low_rank(start_of(nn.Conv2d(8, 8, 3, groups=8)), 0.5)
    monkeypatch.setattr("neq.compression.factorization.find_spec", lambda name: None)
    with pytest.raises(UserError, match="low rank needs tensorly"):
        low_rank(start_of(nn.Conv2d(16, 8, 1)), 0.5)
