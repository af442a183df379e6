"""Products of codes: what they keep for backward, and codes and gradients of any shape and scale."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neq.int8 import Quantization
from neq.int8.multiply import Int8Multiply
from tests.int8.reference import clamped, codes
from tests.int8.test_conv import centred, saved

QUANTIZATION = st.builds(Quantization, st.floats(1e-3, 0.1), st.integers(-128, 127))


@settings(max_examples=60, deadline=None)
@given(
    of=st.tuples(QUANTIZATION, QUANTIZATION),
    zero=st.integers(-128, 127),
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    is_repeated=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_and_gradients_are_those_of_the_references(of, zero, shape, is_repeated, seed):
    rng, output = np.random.default_rng(seed), Quantization(of[0].scale * of[1].scale * 90, zero)
    given_codes = [
        rng.integers(-128, 128, shape if number == 0 or not is_repeated else (*shape[:2], 1, 1))
        for number in range(2)
    ]
    inputs = [
        centred(torch.from_numpy(each), quantization).requires_grad_()
        for each, quantization in zip(given_codes, of, strict=True)
    ]
    found = Int8Multiply(of, output)(*inputs)
    scale = of[0].scale * of[1].scale / output.scale
    product = (given_codes[0] - of[0].zero) * (given_codes[1] - of[1].zero)
    assert np.array_equal(found.detach().numpy() + output.zero, codes(product * scale, output))
    double = [each.detach().double().requires_grad_() for each in inputs]
    right = clamped(double[0] * double[1] * scale, output)
    towards = torch.randn(right.shape)
    expected = torch.autograd.grad(right, double, towards.double())
    for mine, theirs in zip(torch.autograd.grad(found, inputs, towards), expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-3)


def test_codes_of_the_factors_that_are_read_and_one_bit_a_result_are_kept():
    module = Int8Multiply((Quantization(0.1, 3), Quantization(0.1, -5)), Quantization(0.1, 0))
    first, second = torch.zeros(2, 8, 4, 4), torch.zeros(2, 8, 1, 1)

    def kept():
        return sorted((str(t.dtype), t.numel()) for t in saved(lambda: module(first, second)))

    assert kept() == []
    first.requires_grad_()
    assert kept() == [("torch.int8", 16), ("torch.uint8", 256 // 8)]
    second.requires_grad_()
    assert kept() == [("torch.int8", 16), ("torch.int8", 256), ("torch.uint8", 256 // 8)]
