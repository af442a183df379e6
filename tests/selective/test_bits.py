import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neq.selective.bits import pack, unpack
from neq.selective.rows import layout_of


@given(shape=st.tuples(*[st.integers(1, 5)] * 4), seed=st.integers(0, 1000), last=st.booleans())
def test_a_mask_comes_back(shape, seed, last):
    layout = torch.channels_last if last else torch.contiguous_format
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask = mask.contiguous(memory_format=layout)
    bits = pack(mask)
    assert bits.dtype == torch.uint8
    assert len(bits) == -(-mask.numel() // 8)
    assert torch.equal(unpack(bits, mask.shape, layout_of(mask)), mask)


def test_every_byte_comes_back():
    places = torch.arange(8)
    masks = ((torch.arange(256)[:, None] >> places) & 1).bool().view(256, 8, 1, 1)
    bits = pack(masks)
    assert len(set(bits.tolist())) == 256
    assert torch.equal(unpack(bits, masks.shape, torch.contiguous_format), masks)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_is_kept(layout):
    mask = (torch.randn(2, 6, 4, 4) > 0).contiguous(memory_format=layout)
    assert layout_of(unpack(pack(mask), mask.shape, layout)) is layout
