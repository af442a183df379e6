"""Networks of the MCUNet family, built from their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

EPS = 1e-3  # of the batch norms
# The parts of a layer's name in the model zoo -> in MCUNet; "": left out.
_ZOO_PARTS = {
    "mobile_inverted_conv": "",
    "inverted_bottleneck": "pointwise1",
    "depth_conv": "depthwise",
    "point_linear": "pointwise2",
    "feature_mix_layer": "feature_mix",
    "linear": "",
    "conv": "0",
    "bn": "1",
}


def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict of the model zoo (package mcunet) under the names of `MCUNet`; one of MCUNet as it is."""
    return {_own_name(name): tensor for name, tensor in weights.items()}


def is_of_zoo(names: Iterable[str]) -> bool:
    """Whether the names of a state_dict are those of the model zoo."""
    return any(_own_name(name) != name for name in names)


def _own_name(name: str) -> str:
    return ".".join(_ZOO_PARTS.get(part, part) for part in name.split(".") if _ZOO_PARTS.get(part) != "")


def _conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int, folded: bool) -> nn.Module:
    """A convolution with its batch norm; folded: one convolution with a bias."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=folded)
    return conv if folded else nn.Sequential(conv, nn.BatchNorm2d(outputs))


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1); added to its input where shapes allow.

    Args:
        inputs, outputs: channels.
        expansion: hidden channels per input channel; 1 leaves out the expanding convolution.
        stride, kernel: of the depthwise convolution.
        folded: convolutions with a bias and no norms.
    """

    def __init__(
        self, inputs: int, expansion: int, outputs: int, stride: int, kernel: int, folded: bool = False
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.pointwise1 = _conv(inputs, hidden, 1, 1, 1, folded) if expansion != 1 else None
        self.depthwise = _conv(hidden, hidden, kernel, stride, hidden, folded)
        self.pointwise2 = _conv(hidden, outputs, 1, 1, 1, folded)
        self.act = nn.ReLU6(inplace=True)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.pointwise1 is None else self.act(self.pointwise1(x))
        y = self.pointwise2(self.act(self.depthwise(y)))
        return x + y if self.skip else y


class MCUNet(nn.Module):
    """A network of inverted residual blocks with one linear head; its layers are named as in tiny-training.

    Args:
        first: output channels of the first convolution (3x3, stride 2).
        rows: a block each: (expansion, output channels, stride, kernel).
        num_classes: outputs of the head.
        feature_mix: channels of a 1x1 convolution behind the blocks; none: there is none.
        folded: convolutions with a bias and no norms.
        eps: of the batch norms.

    Source: Lin et al., "MCUNet: Tiny Deep Learning on IoT Devices", NeurIPS 2020.
    """

    def __init__(
        self,
        first: int,
        rows: Sequence[tuple[int, int, int, int]],
        num_classes: int,
        feature_mix: int | None = None,
        folded: bool = False,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        self.first_conv = _conv(3, first, 3, 2, 1, folded)
        self.act = nn.ReLU6(inplace=True)
        blocks: list[nn.Module] = []
        channels = first
        for expansion, outputs, stride, kernel in rows:
            blocks.append(InvertedResidual(channels, expansion, outputs, stride, kernel, folded))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.feature_mix = None if feature_mix is None else _conv(channels, feature_mix, 1, 1, 1, folded)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(feature_mix or channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act(self.first_conv(x)))
        if self.feature_mix is not None:
            x = self.act(self.feature_mix(x))
        return self.classifier(self.pool(x).flatten(1))
