"""The two data sets of an adaptation, with the same classes. Labels of the target reach evaluations alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from neq.config import Config, DataProvider, section_of
from neq.data import Data
from neq.tasks import TaskInputs
from neq.tasks.classification import LabelledBatch, on_device
from neq.utils.errors import UserError, shown
from neq.wings.adaptation import PREFIX, AdaptationSettings

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Domains:
    """Source and target of a run.

    Args:
        source: labelled.
        target: whose images train without their labels, those of its test split among them.
        order: of each target class, its number among the source's classes, [K].
        batch_size: images of each domain in a step, of all processes together.
        device: where batches go.
    """

    source: Data
    target: Data
    order: Tensor
    batch_size: int
    device: torch.device

    @classmethod
    def of_run(cls, inputs: TaskInputs) -> Domains:
        """The run's data set as the source, and the target of its settings.

        Raises:
            UserError: no target, or one that is the source, has other classes or too few images.
        """
        source, target = inputs.config.data_provider, target_settings(inputs.config.data_provider, inputs)
        if (target.dataset, _place(target)) == (source.dataset, _place(source)):
            raise UserError(f"source and target are both {_named(source)}; give two domains")
        opened = inputs.open_data(target)
        order = matched(inputs.data.classes, opened.classes, _named(source), _named(target))
        trained = ((_named(source), inputs.data), (_named(target), opened))
        for name, data in trained[1:] if _learns_the_target(inputs.config) else trained:
            if data.counts["train"] < source.base_batch_size:
                raise UserError(
                    f"{name} has {data.counts['train']} training images, fewer than base_batch_size "
                    f"{source.base_batch_size}; lower that"
                )
        return cls(inputs.data, opened, order, source.base_batch_size, inputs.device)

    @property
    def share(self) -> float:
        """Of each batch, the part that this process has."""
        return self.source.share

    @property
    def rounds(self) -> int:
        """Steps of a pass over all target images."""
        return sum(self.target.counts.values()) // self.batch_size

    def source_batches(self, step: int) -> Iterator[LabelledBatch]:
        """Labelled source batches from a step of the run on, pass after pass."""
        return on_device(_from(self.source.train_batches, self.source.steps_per_epoch, step), self.device)

    def source_numbers(self, step: int) -> Iterator[Tensor]:
        """The numbers of the images in `source_batches`, int64 [B]."""
        return _from(self.source.train_numbers, self.source.steps_per_epoch, step)

    def source_images(self) -> Iterator[Tensor]:
        """All images of the source once, in batches, as for evaluation."""
        return (images for images, _ in on_device(self.source.unlabelled_batches(None), self.device))

    def target_images(self) -> Iterator[Tensor]:
        """All images of the target once, likewise."""
        return (images for images, _ in self.target_batches(None))

    def target_batches(self, epoch: int | None, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Target images and their numbers: of an epoch, or all of them once, as for evaluation."""
        batches = on_device(self.target.unlabelled_batches(epoch, start), self.device)
        return ((images, numbers) for images, numbers in batches)

    def labelled_target(self, epoch: int, start: int) -> Iterator[LabelledBatch]:
        """Labelled batches of the target's training split, for the method that is an upper bound."""
        for images, labels in on_device(self.target.train_batches(epoch, start), self.device):
            yield images, self._renumbered(labels)

    def evaluated_target(self, name: Literal["train", "velocity", "test"]) -> Iterator[LabelledBatch]:
        """Labelled images of one of the target's splits, for evaluation."""
        for images, labels in on_device(self.target.eval_batches(name), self.device):
            yield images, self._renumbered(labels)

    def _renumbered(self, labels: Tensor) -> Tensor:
        return self.order.to(labels.device)[labels]


def target_settings(source: DataProvider, inputs: TaskInputs) -> DataProvider:
    """The data settings of the target: those of the source, with another data set and no validation split.

    A `train_part` is of the images that are learned with labels; of unlabelled ones all train.

    Raises:
        UserError: the settings name none.
    """
    settings = section_of(inputs.config, AdaptationSettings)
    if settings.target is None:
        raise UserError(
            f"objective {inputs.config.objective!r} needs a second data set; give it with --target NAME"
        )
    own: dict[str, object] = {"dataset": settings.target, "root": settings.target_root, "corruption": None}
    if settings.target == "image_folder" and settings.target_root is None:
        raise UserError("target 'image_folder' needs the folder of its images; give --target_root DIR")
    part = source.train_part if _learns_the_target(inputs.config) else (0.0, 1.0)
    held_out = 1 if settings.velocity_of == "source" else source.velocity_images
    own |= {"use_validation": False, "velocity_images": held_out, "train_part": part}
    return source.model_copy(update=own)


def _learns_the_target(config: Config) -> bool:
    """Whether the labels that are learned are the target's."""
    return config.objective == f"{PREFIX}labelled"


def matched(source: tuple[str, ...], target: tuple[str, ...], first: str, second: str) -> Tensor:
    """Of each target class, its number among the source's classes, int64 [K].

    Args:
        source, target: class names.
        first, second: what the domains are called in an error.

    Raises:
        UserError: a class is in one domain alone.
    """
    for names, others, has, lacks in ((source, target, first, second), (target, source, second, first)):
        if missing := [name for name in names if name not in others]:
            raise UserError(
                f"class {shown(missing[0])} (one of {len(missing)}) is in {has} but not in {lacks}: both "
                "domains need the same classes by name; remove it or add images of it"
            )
    return torch.tensor([source.index(name) for name in target])


def _from(epoch_of: Callable[[int, int], Iterator[Batch]], steps: int, step: int) -> Iterator[Batch]:
    """Batches from a step on, pass after pass: a resumed run finds the same ones."""
    epoch, first = divmod(step, steps)
    while True:
        yield from epoch_of(epoch, first)
        epoch, first = epoch + 1, 0


def _place(data: DataProvider) -> Path | None:
    return None if data.root is None else Path(data.root).expanduser().resolve()


def _named(data: DataProvider) -> str:
    return data.dataset if data.root is None else shown(data.root)
