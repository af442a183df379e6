import torch
from torch import nn

from neq.compression.binary import binarized
from neq.compression.packing import packed_bytes


def test_bytes_of_a_packed_file():
    network = nn.Linear(16, 4, bias=False)
    assert packed_bytes(network) == 256
    with torch.no_grad():
        network.weight[1:] = 0
    assert packed_bytes(network) == 8 + 16 * 4


def test_binary_weights_take_a_bit_and_their_scales():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3))
    dense = packed_bytes(network)
    assert dense == 4 * (8 * 27 + 8 + 5 * 72 + 5)
    assert packed_bytes(binarized(network, ["1"])) == dense - 4 * 5 * 72 + 5 * 72 // 8 + 5 * 4
