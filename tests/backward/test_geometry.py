import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from neq.backward.geometry import Geometry

# What once ended the process: oneDNN wrote beyond its memory.
STEPS = """
import torch, neq
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 12, 1, 2, bias=False), torch.nn.BatchNorm2d(12), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(12, 5),
)
network = network.to(memory_format=torch.channels_last)
images = torch.randn(8, 3, 64, 64).contiguous(memory_format=torch.channels_last)
table = neq.neuron_table(network, (3, 64, 64))
for chosen in ([0, 5], list(range(12))):
    plan = neq.Plan(network, table, {"0": torch.tensor(chosen)}, "frozen")
    for _ in range(20):
        plan(images).sum().backward()
        torch.empty(1000), torch.empty(100000)
print("whole")
"""


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


@pytest.mark.slow
def test_a_strided_pointwise_stem_trains_without_harm_to_the_process():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "whole\n")
