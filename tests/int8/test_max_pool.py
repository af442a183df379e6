"""Max pooling of codes."""

import numpy as np
import pytest
import torch

from neq.int8 import MaxPool, Quantization
from neq.int8.max_pool import Int8MaxPool
from tests.int8.reference import slow_max_pool
from tests.int8.test_conv import centred, saved


@pytest.mark.parametrize("window", [(3, 2, 1), (2, 2, 0), (7, 1, 3), (1, 3, 0)])
def test_the_codes_are_the_largest_of_each_window(window):
    given = Quantization(0.1, 90)  # so that most centred codes are below the zeros of a padding
    pool, codes = (
        MaxPool("a", ("image",), given, *window),
        np.random.default_rng(0).integers(-128, 128, (2, 3, 9, 8)),
    )
    x = centred(torch.from_numpy(codes), given).requires_grad_()
    found = Int8MaxPool(pool, given)(x)
    assert np.array_equal(found.detach().numpy() + given.zero, slow_max_pool(codes, pool))
    towards = torch.randn(found.shape)
    (grad,) = torch.autograd.grad(found, x, towards)
    double = x.detach().double().requires_grad_()
    right = torch.nn.functional.max_pool2d(double, *window)
    (right_grad,) = torch.autograd.grad(right, double, towards.double())
    torch.testing.assert_close(grad.double(), right_grad, rtol=1e-5, atol=1e-5)


def test_two_bytes_a_result_are_kept():
    module = Int8MaxPool(MaxPool("a", ("image",), Quantization(0.1, 0), 2, 2), Quantization(0.1, 0))
    kept = saved(lambda: module(torch.zeros(2, 3, 8, 8).requires_grad_()))
    assert [(each.dtype, each.numel()) for each in kept] == [(torch.int16, 2 * 3 * 16)]
