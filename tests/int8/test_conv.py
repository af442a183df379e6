"""Convolutions of codes: codes as of slow integer arithmetic, gradients as straight through the rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neq.backward.input_channels import InputChannels
from neq.backward.output_channels import OutputChannels
from neq.int8 import Conv, Int8Conv, Quantization
from tests.int8.reference import reference_conv, slow_conv

ZERO = st.integers(-128, 127)


@st.composite
def cases(draw):
    """A convolution, the quantization of its input, and codes [B, I, H, W]."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, stride = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    inputs, outputs = (groups * draw(st.integers(1, 3)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 3)), inputs, draw(st.integers(kernel, 9)), draw(st.integers(kernel, 9))
    source, output = (Quantization(draw(st.floats(1e-3, 1.0)), draw(ZERO)) for _ in range(2))
    weight = torch.from_numpy(rng.integers(-127, 128, (outputs, inputs // groups, kernel, kernel)))
    spread = output.scale / source.scale / (weight[0].numel() ** 0.5 * 74) * draw(st.floats(0.3, 1.5))
    scales = torch.from_numpy(rng.uniform(0.5, 1.0, outputs) * spread * 100 / 74)
    bias = torch.from_numpy(rng.integers(-3000, 3000, outputs))
    conv = Conv(
        "a", ("image",), output, weight.to(torch.int8), bias.to(torch.int32), scales.float(), stride, groups
    )
    return conv, source, torch.from_numpy(rng.integers(-128, 128, shape))


def centred(codes, quantization, layout=torch.contiguous_format):
    return (codes - quantization.zero).float().contiguous(memory_format=layout)


@pytest.mark.parametrize("exact", [False, True])
@settings(max_examples=60, deadline=None)
@given(case=cases(), last=st.booleans())
def test_the_codes_are_those_of_integer_arithmetic(exact, case, last):
    conv, source, codes = case
    module = Int8Conv(conv, source)
    module.exact = exact
    x = centred(codes, source, torch.channels_last if last else torch.contiguous_format)
    with torch.no_grad():
        found = module(x)
    right = slow_conv(codes.numpy(), conv, source)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy() + conv.output.zero, right)


@settings(max_examples=40, deadline=None)
@given(case=cases(), last=st.booleans(), data=st.data())
def test_the_gradients_are_those_of_the_straight_through_reference(case, last, data):
    conv, source, codes = case
    module = Int8Conv(conv, source)
    with torch.no_grad():
        module.weight += torch.rand(module.weight.shape) * 0.8 - 0.4
        module.bias += torch.rand(module.bias.shape) * 0.8 - 0.4
    x = centred(codes, source, torch.channels_last if last else torch.contiguous_format).requires_grad_()
    double = [tensor.detach().double().requires_grad_() for tensor in (x, module.weight, module.bias)]
    right = reference_conv(*double, conv, source)
    towards = torch.randn(right.shape)
    expected = torch.autograd.grad(right, double, towards.double())
    axis = data.draw(st.sampled_from([0, 1])) if conv.groups == 1 else 0
    count = module.weight.shape[axis]
    index = torch.tensor(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    chosen = (
        InputChannels(index)
        if axis == 1
        else OutputChannels.of(index, len(conv.weight), conv.in_channels, conv.groups)
    )
    leaf = module.weight.detach().index_select(axis, index).requires_grad_()
    for slice_, of, part in ((module.weight, None, None), (leaf, chosen, index)):
        out = module.convolve(x, slice_, module.bias, of)
        assert torch.equal(out.double(), right)
        found = torch.autograd.grad(out, (x, slice_, module.bias), towards)
        whole = expected[1] if part is None else expected[1].index_select(axis, part)
        for mine, theirs in zip(found, (expected[0], whole, expected[2]), strict=True):
            assert mine.shape == theirs.shape
            torch.testing.assert_close(
                mine.double(), theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max() + 1e-6)
            )


def saved(function):
    """The tensors, other than parameters, that a forward pass keeps for backward."""
    found = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(t) or t, lambda t: t):
        function()
    return [tensor for tensor in found if not isinstance(tensor, torch.nn.Parameter)]


def test_codes_of_the_chosen_inputs_and_one_bit_a_result_are_kept():
    conv = Conv(
        *("a", ("image",), Quantization(0.1, 3)),
        *(torch.ones(8, 6, 3, 3, dtype=torch.int8), torch.ones(8, dtype=torch.int32), torch.ones(8) / 100),
    )
    module = Int8Conv(conv, Quantization(0.1, -5))
    x = torch.zeros(2, 6, 4, 4).requires_grad_()
    chosen = InputChannels(torch.tensor([1, 4]))
    leaf = module.weight.detach()[:, [1, 4]].requires_grad_()
    kept = saved(lambda: module.convolve(x, leaf, module.bias, chosen))
    storages = {t.untyped_storage().data_ptr() for t in module.parameters()}
    sizes = {(t.dtype, t.numel()) for t in kept if t.untyped_storage().data_ptr() not in storages}
    assert sizes == {(torch.int8, 2 * 2 * 16), (torch.uint8, 2 * 8 * 16 // 8)}
    with torch.no_grad():
        assert not saved(lambda: module.convolve(x, None, module.bias.detach(), None))
    assert not saved(lambda: module.convolve(x.detach(), None, module.bias.detach(), None))
    bias = saved(lambda: module.convolve(x.detach(), None, module.bias, None))
    assert [(t.dtype, t.numel()) for t in bias] == [(torch.uint8, 2 * 8 * 16 // 8)]


def test_sums_beyond_float32_are_exact_where_asked():
    """255 * 127 * 576 is more than 2^24, and odd sums beyond it are not values of float32."""
    weight = torch.full((1, 576, 1, 1), 127, dtype=torch.int8)
    conv = Conv(
        *("a", ("image",), Quantization(1.0, 0), weight),
        *(torch.tensor([-255 * 127 * 576 + 64], dtype=torch.int32), torch.tensor([1.0])),
    )
    module = Int8Conv(conv, Quantization(1.0, -128))
    module.exact = True
    codes = torch.full((1, 576, 1, 1), 127)
    codes[0, 5] = 126
    with torch.no_grad():
        found = module(centred(codes, Quantization(1.0, -128)))
    assert found.item() == slow_conv(codes.numpy(), conv, Quantization(1.0, -128)).item() == 64 - 127


def test_dead_channels_are_finite():
    conv = Conv(
        *("a", ("image",), Quantization(0.05, 0)),
        *(torch.zeros(2, 3, 1, 1, dtype=torch.int8), torch.tensor([2**31 - 1, -(2**31)], dtype=torch.int32)),
        torch.tensor([3.9e-9, 3.9e-9]),
    )
    module = Int8Conv(conv, Quantization(0.02, 0))
    x = torch.zeros(1, 3, 2, 2, requires_grad=True)
    out = module(x)
    right = slow_conv(np.zeros((1, 3, 2, 2), np.int64), conv, Quantization(0.02, 0))
    assert np.array_equal(out.detach().numpy(), right)
    out.sum().backward()
    assert all(bool(t.grad.isfinite().all()) for t in (x, module.weight, module.bias))
    weight, bias = module.codes()
    assert bias.tolist() == [2**31 - 1, -(2**31)]
    assert weight.dtype == torch.int8


def test_autocast_leaves_the_sums_alone():
    conv = Conv(
        *("a", ("image",), Quantization(1.0, 0)),
        *(torch.full((1, 9, 1, 1), 127, dtype=torch.int8), torch.zeros(1, dtype=torch.int32)),
        torch.tensor([1 / 1000]),
    )
    module, x = Int8Conv(conv, Quantization(1.0, 0)), torch.arange(9.0).view(1, 9, 1, 1) + 101
    with torch.no_grad():
        plain = module(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(module(x), plain)
