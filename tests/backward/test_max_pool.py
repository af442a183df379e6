import pytest
import torch
from torch import nn

import neq
from neq.backward.max_pool import is_max_pool, max_pool
from neq.training.profiling import SavedBytes

POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(3, 2, ceil_mode=True),
    nn.MaxPool2d((2, 3), (1, 2), (1, 1)),
    nn.MaxPool2d(3, 1, 1, dilation=2),
    nn.MaxPool2d(16, 4),
]


def images(dtype=torch.float64, layout=torch.channels_last):
    stream = torch.Generator().manual_seed(0)
    found = torch.randn(2, 3, 33, 36, generator=stream, dtype=torch.float64).to(dtype)
    found[0, 0, :4] = 0.0  # ties
    found[1, 1, 5, 5] = torch.nan
    return found.to(memory_format=layout)


@pytest.mark.parametrize("pool", POOLS, ids=repr)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_output_and_gradient_are_bit_identical_to_torchs(pool, layout, dtype):
    results = []
    for module in (pool, max_pool(pool)):
        x = images(dtype, layout).requires_grad_()
        out = module(x)
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out))
        results.append((out.detach(), x.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert ours.stride() == theirs.stride()


def test_two_bytes_for_each_output_are_kept():
    x = images().requires_grad_()
    kept = SavedBytes([x])
    with kept.counting():
        out = max_pool(nn.MaxPool2d(3, 2, 1))(x)
    assert kept.total == 2 * out.numel()


def test_without_gradient_nothing_is_kept_and_other_shapes_work():
    pool, x = nn.MaxPool2d(2), images()
    assert torch.equal(max_pool(pool)(x).nan_to_num(), pool(x).nan_to_num())
    one = x[0].requires_grad_()
    assert torch.equal(max_pool(pool)(one).nan_to_num(), pool(one).nan_to_num())


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.MaxPool2d(16), True),
        (nn.MaxPool2d(2, return_indices=True), False),
        (nn.AvgPool2d(2), False),
        (None, False),
    ],
)
def test_only_max_pooling_that_returns_no_indices(module, expected):
    assert is_max_pool(module) is expected


@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
def test_a_network_that_pools_keeps_a_part_of_what_stock_training_keeps(norm_mode):
    """Fault: without norms, a plan kept more than full training, whose pooling keeps all maps."""
    torch.manual_seed(0)
    layers = [
        (nn.Conv2d(3 if not i else 8, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)) for i in range(3)
    ]
    network = nn.Sequential(
        *(module for each in layers for module in each), nn.Flatten(), nn.Linear(8 * 64, 5)
    )
    network = network.double()
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    table = neq.neuron_table(network, (3, 64, 64))
    selection = {layer.name: torch.arange(layer.neurons) for layer in table.layers}
    plan = neq.Plan(network, table, selection, norm_mode)
    totals, gradients = [], []
    for forward in (network, plan):
        network.zero_grad()
        kept = SavedBytes([x, *network.parameters()])
        with kept.counting():
            loss = forward(x).square().sum()
        loss.backward()
        totals.append(kept.total)
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert totals[1] < totals[0] / 2
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_windows_that_two_bytes_cannot_address_are_pooled_by_torch():
    x = torch.randn(1, 1, 3, 20_000, dtype=torch.float64, requires_grad=True)
    kept = SavedBytes([])
    with kept.counting():
        out = max_pool(nn.MaxPool2d(3, 1))(x)
    assert torch.equal(out, nn.MaxPool2d(3, 1)(x))
    assert kept.total > x.nbytes
