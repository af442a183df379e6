"""What is quantized from the command line: a network, and images of its data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from neq.config import WEIGHTS_BY_NAME, Config, dataset
from neq.data import Source, run_source
from neq.data.splits import split
from neq.data.transforms import eval_transform, normalization
from neq.int8.description import Description, Images
from neq.int8.network import Int8Network
from neq.networks.build import build_network
from neq.results.best_network import load_best
from neq.utils.errors import UserError
from neq.utils.seeds import generator

_BATCH = 16


@dataclass(frozen=True)
class FloatStart:
    """A network and the images that it is quantized with.

    Args:
        network: in eval mode, on the CPU.
        config: resolved; its data set is the images'.
        source: of the images.
        classes: names of the outputs; empty where the classifier is new, and knows no classes yet.
    """

    network: nn.Module
    config: Config
    source: Source
    classes: tuple[str, ...]

    @property
    def made_for(self) -> Images:
        """Size and normalization of the images."""
        settings = self.config.data_provider
        mean_std = settings.mean_std
        assert settings.image_size is not None
        assert mean_std is not None
        return Images(settings.image_size, mean_std.mean, mean_std.std)

    def images(self, name: Literal["train", "test"], count: int) -> Tensor:
        """Images of a split, normalized, float32 [N, 3, S, S].

        Args:
            name: of the split.
            count: N, or all where the split has fewer.

        Raises:
            UserError: the data cannot be split, or an image cannot be read.
        """
        return torch.cat([images for images, _ in self._batches(name, count)])

    @torch.no_grad()
    def accuracies(self, network: Description, count: int) -> tuple[float, float]:
        """The top-1 accuracy in % of the float network and of an int8 one.

        Args:
            network: the int8 network.
            count: test images at most.
        """
        networks, hits, total = (self.network, Int8Network(network)), [0, 0], 0
        for images, labels in self._batches("test", count):
            total += len(labels)
            for number, each in enumerate(networks):
                outputs = each(images.contiguous(memory_format=torch.channels_last))
                hits[number] += int((outputs.argmax(1) == labels).sum())
        return 100 * hits[0] / total, 100 * hits[1] / total

    def _batches(self, name: str, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        settings, made_for = self.config.data_provider, self.config.data_provider.mean_std
        assert settings.image_size is not None
        assert made_for is not None
        augmentation = settings.augmentation or dataset(settings.dataset).augmentation
        resize, normalize = eval_transform(settings.image_size, augmentation), normalization(made_for)
        part = torch.from_numpy(split(self.source, settings, self.config.manual_seed)[name])
        drawn = torch.randperm(len(part), generator=generator(0, "quantize", name))[:count]
        for numbers in part[drawn].split(_BATCH):
            images = torch.stack([resize(self.source.image(int(number))) for number in numbers])
            yield normalize(images), torch.from_numpy(self.source.labels[numbers.numpy()]).long()


def of_run(folder: Path, root: object = None) -> FloatStart:
    """The best network of a run, with its classes and images of its data set.

    Args:
        folder: of the run.
        root: of the data set, where it has moved.

    Raises:
        UserError: no such run, or data that is missing or has other classes.
    """
    best = load_best(folder)
    settings = best.config.data_provider
    if root is not None:
        settings = settings.model_copy(update={"root": str(root)})
    source = run_source(settings)
    if len(source.classes) != len(best.classes):
        raise UserError(
            f"the images of {settings.dataset} have {len(source.classes)} classes, the network of {folder} "
            f"{len(best.classes)}; give the images that it was trained on with --root"
        )
    config = best.config.model_copy(update={"data_provider": settings})
    return FloatStart(best.network, config, source, best.classes)


def of_name(config: Config) -> FloatStart:
    """The network that a configuration names, with images of its data set.

    Args:
        config: resolved.

    Raises:
        UserError: a network or data that is not available.
    """
    settings, net = config.data_provider, config.net_config
    source = run_source(settings)
    network = build_network(
        net.net_name, len(source.classes), config.manual_seed, net.weights, net.weights_key
    )
    classes = () if net.weights in WEIGHTS_BY_NAME else tuple(source.classes)
    return FloatStart(network.eval(), config, source, classes)
