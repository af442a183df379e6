import pytest
import torch
import torch.nn.functional as F

from neq.backward.geometry import Geometry


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("channels", "neurons", "groups", "stride", "padding"),
    [
        (3, 5, 1, (2, 2), 0),
        (15, 4, 1, (2, 3), 0),
        (16, 4, 1, (2, 2), 0),
        (6, 4, 2, (2, 1), 0),
        (3, 4, 1, (2, 2), 1),
    ],
)
def test_gradients_of_strided_pointwise_convolutions_are_autograds(
    channels, neurons, groups, stride, padding, layout
):
    stream = torch.Generator().manual_seed(0)
    # An odd size: the last pixels are read by no stride.
    x = torch.randn(2, channels, 8, 9, generator=stream, dtype=torch.float64).to(memory_format=layout)
    w = torch.randn(neurons, channels // groups, 1, 1, generator=stream, dtype=torch.float64)
    x.requires_grad_()
    w.requires_grad_()
    out = F.conv2d(x, w, None, stride, padding, 1, groups)
    grad = torch.randn(out.shape, generator=stream, dtype=torch.float64)
    expected = torch.autograd.grad(out, (x, w), grad)
    geometry = Geometry(stride, (padding, padding), (1, 1), groups)
    found = geometry.gradients(grad, x.detach(), w.detach(), needs_x=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    alone = geometry.weight_gradient(grad, x.detach(), torch.empty_like(w), groups)
    torch.testing.assert_close(alone, expected[1])


@pytest.mark.parametrize(("channels", "expected"), [(3, [(1, 1)]), (15, [(1, 1)]), (16, [(2, 2)])])
def test_few_channels_are_never_read_with_a_stride(monkeypatch, channels, expected):
    """Fault: oneDNN wrote beyond its memory, which ended the process at some later time."""
    strides = []
    real = torch.ops.aten.convolution_backward

    def spy(grad, x, weight, bias, stride, *others):
        strides.append(tuple(stride))
        return real(grad, x, weight, bias, stride, *others)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", spy)
    x = torch.randn(2, channels, 8, 8).to(memory_format=torch.channels_last)
    geometry = Geometry((2, 2), (0, 0), (1, 1), 1)
    geometry.weight_gradient(torch.randn(2, 4, 4, 4), x, torch.empty(4, channels, 1, 1), 1)
    assert strides == expected
