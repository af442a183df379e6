import pytest
import torch

from neq.backward.geometry import Geometry
from neq.backward.output_channels import OutputChannels, layout_of, pick_channels
from tests.toys import CountMacs


def groups_of(rows):
    """Groups and chosen channels of each smaller convolution."""
    return [(each.groups, each.channels.tolist()) for each in rows.even]


def test_dense_rows_read_everything():
    rows = OutputChannels.of(torch.tensor([1, 5]), 8, 4, 1)
    x = torch.randn(2, 4, 3, 3)
    assert rows.read(x) is x
    assert groups_of(rows) == [(1, [1, 5])]


def test_depthwise_rows_read_their_own_channel():
    rows = OutputChannels.of(torch.tensor([1, 5, 6]), 8, 4, 4)  # two outputs a channel
    assert rows.inputs.tolist() == [0, 2, 3]
    assert groups_of(rows) == [(3, [1, 5, 6])]


def test_uneven_groups_are_computed_apart():
    rows = OutputChannels.of(torch.tensor([0, 2, 4, 7, 8]), 12, 8, 4)
    assert rows.inputs.tolist() == [0, 1, 2, 3, 4, 5]
    assert groups_of(rows) == [(1, [4]), (2, [0, 2, 7, 8])]
    assert [each.inputs.tolist() for each in rows.even] == [[2, 3], [0, 1, 4, 5]]


@pytest.mark.parametrize("chosen", [[0, 3, 6], [0, 1, 2, 3], [0, 1, 2, 7], [4], [0, 3, 4, 5, 9, 10, 11]])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_is_that_of_the_chosen_rows_and_computes_nothing_else(chosen, layout):
    generator = torch.Generator().manual_seed(0)
    x, weight, grad = (
        torch.randn(shape, generator=generator, dtype=torch.float64).contiguous(memory_format=layout)
        for shape in ((2, 8, 5, 4), (12, 2, 3, 3), (2, 12, 5, 4))
    )
    geometry = Geometry((1, 1), (1, 1), (1, 1), 4)
    _, whole = geometry.gradients(grad, x, weight, False)
    rows = OutputChannels.of(torch.tensor(chosen), 12, 8, 4)
    with CountMacs() as count:
        found = rows.gradient(grad, rows.read(x), geometry, torch.Size((len(chosen), 2, 3, 3)))
    torch.testing.assert_close(found, whole[chosen], rtol=0, atol=1e-12)
    assert count.macs == len(chosen) * 2 * 9 * 2 * 5 * 4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [[0, 2, 7], [1, 4, 8]])
def test_what_is_gathered_keeps_its_layout(layout, channels):
    x = torch.randn(2, 9, 5, 4).contiguous(memory_format=layout)
    rows = OutputChannels.of(torch.tensor(channels), 9, 9, 3)
    assert layout_of(x) is layout
    assert layout_of(pick_channels(x, rows.channels)) is layout
    assert layout_of(rows.read(x)) is layout
    assert torch.equal(rows.read(x), x[:, rows.inputs])
