"""Dropout by image."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.ops import StochasticDepth

from neq.backward import ImageDraws, has_draws

IMAGES = 6


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.values, self.maps = nn.Dropout(0.3), nn.Dropout2d(0.4)
        self.rows = StochasticDepth(0.5, "row")

    def forward(self, x):
        return self.values(x), self.maps(x), self.rows(x), F.dropout(x.flatten(1), 0.5)


def drawn(seeds, network=None, size=2):
    torch.manual_seed(len(seeds))  # the global generator has no say
    with ImageDraws(seeds):
        return (network or Dropping())(torch.ones(len(seeds), 16, size, size))


def test_an_image_draws_the_same_in_any_batch():
    seeds = list(range(40, 40 + IMAGES))
    whole = drawn(seeds)
    parts = [drawn(seeds[:1]), drawn(seeds[1:4]), drawn(seeds[4:])]
    for found, *cut in zip(whole, *parts, strict=True):
        assert torch.equal(found, torch.cat(cut))
        assert 0 < int((found == 0).sum()) < found.numel()
    assert not torch.equal(whole[0][0], whole[0][1])
    assert not torch.equal(*(part[0] for part in (drawn([1]), drawn([2]))))


def test_rates_and_scales_are_those_of_torch():
    values, maps, rows, _ = drawn(list(range(600)), size=4)
    for found, rate in ((values, 0.3), (maps, 0.4), (rows, 0.5)):
        assert found.unique().tolist() == [0.0, pytest.approx(1 / (1 - rate))]
        assert float((found == 0).float().mean()) == pytest.approx(rate, abs=0.06)
    assert torch.equal(maps, maps[:, :, :1, :1].expand_as(maps))
    assert torch.equal(rows, rows[:, :1, :1, :1].expand_as(rows))


def test_gradients_and_in_place_dropout():
    found = []
    for inplace in (False, True):
        x = torch.ones(IMAGES, 8, requires_grad=True)
        with ImageDraws(range(IMAGES)):
            out = F.dropout(x * 2, 0.5, inplace=inplace)
        out.sum().backward()
        found.append((out, x.grad))
        assert torch.equal(x.grad, out)
    assert torch.equal(found[0][0], found[1][0])


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_rate_are_torchs(rate):
    x = torch.ones(IMAGES, 8)
    with ImageDraws(range(IMAGES)):
        assert torch.equal(F.dropout(x, rate), torch.full_like(x, 1 - rate))
        assert torch.equal(F.dropout(x, 0.5, training=False), x)


def test_what_is_no_batch_draws_from_the_global_generator():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with ImageDraws(range(IMAGES)):
            found.append(F.dropout(torch.ones(IMAGES + 1, 64)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Sequential(nn.Dropout(0.1)), True),
        (lambda: torchvision.models.efficientnet_b0(), True),
        (lambda: torchvision.models.resnet18(), False),
    ],
)
def test_networks_that_drop(make, expected):
    with torch.device("meta"):
        assert has_draws(make()) == expected
