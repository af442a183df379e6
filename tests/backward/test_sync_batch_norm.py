"""A batch that is shared with nobody is normed as torch does it; shares of one are in test_reduction."""

import pytest
import torch
from torch import nn

from neq.backward import SyncBatchStats
from neq.backward.sync_batch_norm import SplitBatchNormFunction, batch_norm, batch_norm_backward

SINGLE_PROCESS = SyncBatchStats(lambda values: values, 1.0)
SHAPES = [(6, 4, 5, 3), (7, 4), (3, 4, 8)]


def results(norm, x, shared):
    """Output, gradients and running statistics of a norm."""
    x = x.clone().requires_grad_()
    running = (norm.running_mean, norm.running_var, 0.1, norm.eps)
    out = (
        SplitBatchNormFunction.apply(x, norm.weight, norm.bias, running, SINGLE_PROCESS)
        if shared
        else norm(x)
    )
    out.square().sum().backward()
    affine = [] if norm.weight is None else [norm.weight.grad, norm.bias.grad]
    return [out.detach(), x.grad, *affine, norm.running_mean, norm.running_var]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_alone_it_is_a_batch_norm(shape, affine):
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(shape, generator=generator, dtype=torch.float64) + 1
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    found, expected = (
        results(kind(4, affine=affine, dtype=torch.float64), x, shared) for shared in (True, False)
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_gradient_that_is_nearly_the_same_everywhere_keeps_in_bf16_what_it_differs_by(layout):
    """Its mean is taken off: rounded before that, nothing but the rounding would be left."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(16, 4, 9, 9, generator=generator) for _ in range(2))
    x, grad = (value.to(torch.bfloat16, memory_format=layout) for value in (x, 1 + 0.05 * grad))
    gamma = torch.rand(4, generator=generator) + 0.5
    exact = nn.functional.batch_norm(
        leaf := x.double().requires_grad_(), None, None, gamma.double(), training=True
    )
    exact.backward(grad.double())
    _, mean, invstd = batch_norm(x, gamma, torch.zeros(4), (None, None, 0.1, 1e-5), SINGLE_PROCESS)
    errors = []
    for batch in (SINGLE_PROCESS, None):
        found = batch_norm_backward(grad, x, gamma, mean, invstd, 1e-5, batch)[0]
        assert found.is_contiguous(memory_format=layout)
        errors.append((found.double() - leaf.grad).norm() / leaf.grad.norm())
    assert errors[0] < 1.1 * errors[1] < 0.01


def test_a_map_in_bf16_has_its_statistics_in_float32():
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(16, 4, 9, 9, generator=generator).bfloat16() for _ in range(2))
    gamma, beta = torch.rand(4, generator=generator) + 0.5, torch.zeros(4)
    made = {}
    for batch in (SINGLE_PROCESS, None):
        running = (torch.zeros(4), torch.ones(4), 0.1, 1e-5)
        out, mean, invstd = batch_norm(x, gamma, beta, running, batch)
        gradients = batch_norm_backward(grad, x, gamma, mean, invstd, 1e-5, batch)
        assert [value.dtype for value in (out, mean, invstd)] == [torch.bfloat16, *[torch.float32] * 2]
        made[batch] = [mean, invstd, *running[:2], *gradients[1:]], [out.float(), gradients[0].float()]
    for exact, found, expected in zip((True, False), made[SINGLE_PROCESS], made[None], strict=True):
        tolerance = 1e-5 if exact else 2**-6
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)
