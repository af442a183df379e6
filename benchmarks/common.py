"""What benchmarks share: the command line, networks ready to train, seconds and peak memory of a call."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from neq.networks.build import build_network
from neq.networks.heads import replace_head
from neq.utils.allocations import peak_bytes as peak_bytes  # with what else benchmarks measure
from neq.utils.cpu import cpu_model
from neq.utils.errors import UserError, shown, unknown_name
from neq.utils.seeds import generator, seed_for

TORCHVISION = "torchvision:"


def run_benchmark(benchmark: Callable[[list[str]], None], argv: list[str] | None = None) -> int:
    """Runs a benchmark's command; gives the exit code: 0, or 2 after a user's mistake.

    Args:
        benchmark: takes the arguments.
        argv: the arguments; by default the process' own.
    """
    try:
        benchmark(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def check_output(path: Path) -> None:
    """Checks that a report can lie at a path.

    Raises:
        UserError: it is a folder, or lies in none.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"output {shown(str(path))} is no place for a file: give one in a folder that exists")


def at_least(smallest: int) -> Callable[[str], int]:
    """An argument's type: a whole number that is not smaller."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number of {smallest} or more")
        return value

    return whole_number


def open_device(name: str) -> torch.device:
    """The device of that name; UserError where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available here; take --device cpu")
    return torch.device(name)


def open_network(name: str, classes: int) -> nn.Module:
    """A network by its name in neq, or `torchvision:NAME` for any other classifier there, untrained.

    Args:
        name: as neq or torchvision call it.
        classes: outputs of its head.

    Raises:
        UserError: unknown name, or a network whose head is no Linear.
    """
    if not name.startswith(TORCHVISION):
        return build_network(name, classes)
    known = torchvision.models.list_models(module=torchvision.models)
    if (plain := name.removeprefix(TORCHVISION)) not in known:
        raise unknown_name("torchvision network", plain, known, f"See {torchvision.models.__name__}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(0, "network"))
        network: nn.Module = torchvision.models.get_model(plain)
        if not any(isinstance(module, nn.Linear) for module in network.modules()):
            raise UserError(f"network {shown(name)} has no Linear head; take another one")
        replace_head(network, classes)
    return network


def random_batch(
    size: int, image_size: int, classes: int, device: torch.device, number: int = 0
) -> tuple[Tensor, Tensor]:
    """Normal images [size, 3, image_size, image_size] and labels [size], the same at every call."""
    stream = generator(0, "batch", number)
    images = torch.randn(size, 3, image_size, image_size, generator=stream)
    labels = torch.randint(0, classes, (size,), generator=stream)
    return images.to(device), labels.to(device)


def settle(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Makes an untrained network more like a trained one, in place.

    Batch norms get uneven weights and biases, so that no gradient is degenerate, and then the running
    statistics of some batches; nothing is dropped at random any more.

    Args:
        network: on the device of the batches.
        batches: of images [B, 3, H, W].
    """
    stream = generator(0, "norms")
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for module in network.modules():
        if isinstance(module, (_DropoutNd, torchvision.ops.StochasticDepth)):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        for name in ("drop_rate", "drop_prob"):  # timm's, of networks and of stochastic depth
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            if norm.affine:
                # Drawn on the CPU: the same network on every device.
                norm.weight.copy_(torch.empty(norm.num_features).uniform_(0.8, 1.2, generator=stream))
                norm.bias.copy_(torch.empty(norm.num_features).uniform_(-0.1, 0.3, generator=stream))
        network.train()
        for images in batches:
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, until the device is done with it."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def machine(device: torch.device) -> dict[str, Any]:
    """What a measurement was made on."""
    on_cuda = device.type == "cuda"
    return {
        "cpu": cpu_model(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_cuda else device.type,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
