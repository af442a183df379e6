import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neq.backward import bitmask as bits
from neq.backward.output_channels import layout_of


def check(x, gradient):
    """Packing where x is positive and multiplying by it is what the mask itself does."""
    packed = bits.pack_where(lambda piece: piece > 0, x)
    assert packed.dtype == torch.uint8
    assert packed.numel() == (x.numel() + 7) // 8
    product = bits.times_mask(gradient, packed, layout_of(x))
    assert torch.equal(product, gradient * (x > 0))
    assert x.dim() != 4 or layout_of(product) is layout_of(x) or 1 in x.shape


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.booleans(), st.integers(0, 9))
def test_any_shape_in_any_layout(shape, last, gradient_last, seed):
    generator = torch.Generator().manual_seed(seed)
    x, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        gradient = gradient.contiguous(memory_format=torch.channels_last) if gradient_last else gradient
    check(x, gradient)


@pytest.mark.parametrize("piece", [8, 64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_piece_by_piece(piece, layout, monkeypatch):
    monkeypatch.setattr(bits, "_PIECE", piece)
    x, gradient = (torch.randn(3, 5, 7, 3).contiguous(memory_format=layout) for _ in range(2))
    check(x, gradient)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(dtype):
    check(torch.randn(2, 3, 4, 5).to(dtype), torch.randn(2, 3, 4, 5).to(dtype))


def test_nothing_is_packed_to_nothing():
    check(torch.zeros(0, 3, 4, 4), torch.zeros(0, 3, 4, 4))
