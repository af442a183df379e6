import copy

import torch
from torch import nn

from neq.compression import Compressed, sparsify
from neq.compression.rewind import rewind
from neq.networks.recipe import Recipe


def test_what_is_left_returns_to_its_start_and_zeros_stay():
    start = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 3)).eval()
    trained = copy.deepcopy(start)
    with torch.no_grad():
        for each in trained.parameters():
            each.add_(torch.randn_like(each))
    sparse = sparsify(Compressed(trained, Recipe("toy", 3, "3")), 0.5)
    once = rewind(sparse, start)
    left = sparse.network[0].weight != 0
    assert 0.4 < float(left.double().mean()) < 0.6
    assert torch.equal(once.network[0].weight, start[0].weight * left)
    assert torch.equal(once.network[3].weight, start[3].weight)  # the head is not sparse
    assert torch.equal(once.network[1].bias, start[1].bias)
    assert once.recipe == sparse.recipe
    with torch.no_grad():  # trained again, the next round leaves a half of that half
        once.network[0].weight.add_(torch.randn_like(left, dtype=torch.float32) * left)
    twice = rewind(sparsify(once, 0.5), start).network[0].weight
    assert ((twice == 0) | (twice == start[0].weight)).all()
    assert ((twice != 0) <= left).all()
    assert 0.2 < float((twice != 0).double().mean()) < 0.3
