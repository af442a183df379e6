"""Functions of codes by table: values, layout, and what is kept for backward."""

import numpy as np
import pytest
import torch

from neq.int8 import Quantization
from neq.int8.table import Int8Table
from tests.int8.test_conv import centred, saved
from tests.int8.toys import table

GIVEN, OUTPUT = Quantization(0.1, 17), Quantization(0.05, -40)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_code_is_looked_up_and_the_gradient_is_by_its_slope(layout):
    held = table(np.random.default_rng(0), "a", "image", OUTPUT)
    module, codes = Int8Table(held, GIVEN), torch.randperm(256).view(2, 4, 4, 8) - 128
    x = centred(codes, GIVEN, layout).requires_grad_()
    found, towards = module(x), torch.randn(2, 4, 4, 8)
    assert torch.equal(found + OUTPUT.zero, held.table[codes + 128].float())
    assert found.is_contiguous(memory_format=layout)
    (grad,) = torch.autograd.grad(found, x, towards)
    assert torch.equal(grad, towards * held.slopes[codes + 128])


def test_codes_are_kept_where_a_gradient_passes():
    module = Int8Table(table(np.random.default_rng(0), "a", "image", OUTPUT), GIVEN)
    x = torch.zeros(2, 4, 4, 8)
    assert not saved(lambda: module(x))
    buffers = {each.data_ptr() for each in module.buffers()}
    kept = [each for each in saved(lambda: module(x.requires_grad_())) if each.data_ptr() not in buffers]
    assert [(each.dtype, each.numel()) for each in kept] == [(torch.int8, 256)]
