import pytest
import torch

from neq.backward.output_channels import OutputChannels, layout_of


def test_dense_rows_read_everything():
    rows = OutputChannels.of(torch.tensor([1, 5]), 8, 4, 1)
    x = torch.randn(2, 4, 3, 3)
    assert rows.read(x) is x
    assert (rows.used_groups, rows.padded, rows.slots) == (1, 2, None)


def test_depthwise_rows_read_their_own_channel():
    rows = OutputChannels.of(torch.tensor([1, 5, 6]), 8, 4, 4)  # two outputs a channel
    assert rows.inputs.tolist() == [0, 2, 3]
    assert (rows.used_groups, rows.padded, rows.slots) == (3, 3, None)


def test_uneven_groups_are_padded():
    rows = OutputChannels.of(torch.tensor([0, 2, 7]), 9, 6, 3)
    assert rows.inputs.tolist() == [0, 1, 4, 5]
    assert (rows.used_groups, rows.padded) == (2, 4)
    assert rows.slots.tolist() == [0, 1, 2]
    grad = torch.arange(9.0).view(1, 9, 1, 1)
    assert rows.gather(grad).flatten().tolist() == [0, 2, 7, 0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [[0, 2, 7], [1, 4, 8]])
def test_what_is_gathered_keeps_its_layout(layout, channels):
    x = torch.randn(2, 9, 5, 4).contiguous(memory_format=layout)
    rows = OutputChannels.of(torch.tensor(channels), 9, 9, 3)
    assert layout_of(x) is layout
    assert layout_of(rows.gather(x)) is layout
    assert layout_of(rows.read(x)) is layout
    assert torch.equal(rows.read(x), x[:, rows.inputs])
    if rows.slots is None:
        assert torch.equal(rows.gather(x), x[:, channels])
    else:
        assert torch.equal(rows.gather(x)[:, rows.slots], x[:, channels])
