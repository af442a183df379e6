import torch
from torch import nn

from neq.compression import size_of


def test_a_small_network_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    ).eval()
    size = size_of(network, 5)
    assert size.parameters == 4 * 27 + 8 + 10
    assert size.macs == 4 * 27 * 9 + 8
    assert size.bytes == 4 * (4 * 27 + 16 + 10) + 8
    assert size.packed_bytes < size.bytes  # running means and the count of batches are zero


def test_zeros_count_in_the_packed_size_alone():
    network = nn.Linear(3, 64, bias=False).eval()
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), network)
    before = size_of(model, 4)
    with torch.no_grad():
        network.weight[16:] = 0
    after = size_of(model, 4)
    assert (after.parameters, after.macs, after.bytes) == (before.parameters, before.macs, before.bytes)
    assert after.packed_bytes == 3 * 64 // 8 + 3 * 16 * 4
