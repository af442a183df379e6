"""The MCUNet family, built from its tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

_norm = partial(nn.BatchNorm2d, eps=1e-3)


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1); added to its input where shapes allow.

    Args:
        inputs, outputs: channels.
        expansion: hidden channels per input channel; 1 leaves out the expanding convolution.
        stride, kernel: of the depthwise convolution.
    """

    def __init__(self, inputs: int, expansion: int, outputs: int, stride: int, kernel: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        conv = partial(Conv2dNormActivation, norm_layer=_norm)
        blocks: list[nn.Module] = []
        if expansion != 1:
            blocks.append(conv(inputs, hidden, 1, activation_layer=nn.ReLU6))
        blocks.append(conv(hidden, hidden, kernel, stride, groups=hidden, activation_layer=nn.ReLU6))
        blocks.append(conv(hidden, outputs, 1, activation_layer=None))
        self.conv = nn.Sequential(*blocks)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class MCUNet(nn.Module):
    """A network of inverted residual blocks with one linear head.

    Args:
        first: output channels of the first convolution (3x3, stride 2).
        rows: a block each: (expansion, output channels, stride, kernel).
        num_classes: outputs of the head.

    Source: Lin et al., "MCUNet: Tiny Deep Learning on IoT Devices", NeurIPS 2020.
    """

    def __init__(self, first: int, rows: Sequence[tuple[int, int, int, int]], num_classes: int) -> None:
        super().__init__()
        stem = Conv2dNormActivation(3, first, 3, 2, norm_layer=_norm, activation_layer=nn.ReLU6)
        blocks: list[nn.Module] = []
        channels = first
        for expansion, outputs, stride, kernel in rows:
            blocks.append(InvertedResidual(channels, expansion, outputs, stride, kernel))
            channels = outputs
        self.features = nn.Sequential(stem, *blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))
