"""Small networks, data and runs that many tests train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import neq.cli.run_pictures
import neq.cli.sweep
from neq.networks.build import build_network

# Settings of `neq train` for a run of a few seconds, and those of the fixture `tiny_run`.
ONE_EPOCH = ["--n_epochs", "1", "--warmup_epochs", "0", "--image_size", "24", "--device", "cpu"]
TINY_RUN = [*ONE_EPOCH, "--ratio", "0.1"]


def draw_nothing(folder: Path) -> list[str]:
    """In place of a run's pictures, which take longer than small runs do: conftest.py puts it there."""
    return []


@contextmanager
def drawing(draw: Callable[[Path], list[str]] = neq.cli.run_pictures.draw_missing) -> Iterator[None]:
    """What draws the pictures of runs, those of sweeps too; by default what draws them outside tests."""
    with (
        patch.object(neq.cli.run_pictures, "draw_missing", draw),
        patch.object(neq.cli.sweep, "draw_missing", draw),
    ):
        yield


class Toy(nn.Module):
    """Every kind of selectable layer: dense, grouped, depthwise, with bias, 1x1, Linear."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 12, 3, 1, 1, groups=4, bias=False)
        self.norm2 = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 24, 3, 1, 2, dilation=2, groups=12)
        self.norm3 = nn.BatchNorm2d(24)
        self.pointwise = nn.Conv2d(24, 24, 1)
        self.act = nn.ReLU(inplace=True)
        self.hidden = nn.Linear(24, 16)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.stem(x)))
        x = self.act(self.norm2(self.grouped(x)))
        x = self.act(self.norm3(self.depthwise(x)))
        x = self.act(x + self.pointwise(x))
        return self.head(self.act(self.hidden(x.mean((2, 3)))))


def toy(seed: int = 0, dtype: torch.dtype = torch.float64, classes: int = 5) -> Toy:
    """A toy network with fixed weights and uneven norm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Toy(classes).to(dtype)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
                nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network


def batch(seed: int = 0, size: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Images [size, 3, 12, 12] and labels of five classes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 12, 12, generator=generator, dtype=torch.float64).to(dtype)
    return images, torch.randint(0, 5, (size,), generator=generator)


SHAPE = (3, 12, 12)

# Real networks by name, from the number of classes; all take 32 px.
NETWORKS = {
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "mobilenet_v3_small": torchvision.models.mobilenet_v3_small,
    "resnet18": torchvision.models.resnet18,
    "mcunet-in1": lambda num_classes: build_network("mcunet-in1", num_classes),
    "vit": lambda num_classes: torchvision.models.VisionTransformer(
        32, 8, 2, 2, 32, 64, num_classes=num_classes
    ),
}


class CountMacs(TorchDispatchMode):
    """Counts the multiply-accumulates of convolutions' gradients and of matrix products."""

    macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            grad, _, weight, *_, mask = args
            self.macs += sum(mask[:2]) * grad.numel() * (weight.numel() // len(weight))
        if func is torch.ops.aten.mm.default:
            self.macs += args[0].numel() * args[1].shape[1]
        return func(*args, **(kwargs or {}))
