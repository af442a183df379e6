"""A data set opened for one run: named, split, transformed, ready to be iterated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Protocol, Self

import torch

from neq.config.schema import DataProvider, MeanStd
from neq.data.digits import open_digits
from neq.data.image_folder import open_image_folder
from neq.data.loading import Batch, Images, Loader, eval_keys, train_keys
from neq.data.sources import Source
from neq.data.splits import split
from neq.data.transforms import eval_transform, train_transform
from neq.errors import UserError, unknown_name

# A data set by name: from its root folder to its source.
SOURCES: dict[str, Callable[[str | None], Source]] = {
    "digits": open_digits,
    "image_folder": open_image_folder,
}
# A set that is smaller than this as float32 input is kept in memory.
_CACHE_BYTES = 256_000_000


class Entry(Protocol):
    """What the catalog says about a data set."""

    @property
    def augmentation(self) -> str: ...

    @property
    def mean_std(self) -> MeanStd: ...


class Data:
    """The data of one run; a context manager that ends the loader processes.

    Attributes:
        classes: the class names, in the order of the labels.
        counts: images of `train`, `validation`, `velocity` and `test`.
        fingerprint: what tells this copy of the images from another, if there can be several.
        notes: what the user should know about how the data was read.
        steps_per_epoch: training batches of an epoch.

    Args:
        source: the data set.
        settings: the run's data settings, `image_size` resolved.
        augmentation: the data set's augmentation.
        mean_std: input normalization.
        seed: the run's seed.
        pin_memory: put batches into page-locked memory.

    Raises:
        UserError: the data cannot be split, or a training batch would hold one image.
    """

    def __init__(
        self,
        source: Source,
        settings: DataProvider,
        augmentation: str,
        mean_std: MeanStd,
        seed: int,
        pin_memory: bool,
    ) -> None:
        size = settings.image_size
        assert size is not None, "image_size is resolved before data is opened"
        self._parts = split(source, settings, seed)
        self._batch_size = settings.base_batch_size
        self._seed = seed
        self.classes = source.classes
        self.counts = {name: len(part) for name, part in self._parts.items()}
        self.fingerprint = source.fingerprint
        self.notes = source.notes
        self._check_batch()
        self.steps_per_epoch = max(1, self.counts["train"] // self._batch_size)
        random = train_transform(settings, size, augmentation, mean_std) if augmentation != "none" else None
        fits = len(source.labels) * 3 * size * size * 4 < _CACHE_BYTES
        images = Images(
            source,
            evaluation=eval_transform(size, augmentation, mean_std),
            training=random,
            seed=seed,
            cache=fits and settings.n_worker == 0,
        )
        self._loader = Loader(images, settings.n_worker, pin_memory)

    def _check_batch(self) -> None:
        smallest = min(self._batch_size, self.counts["train"])
        if smallest < 2:
            raise UserError(
                f"a training batch would hold 1 image (base_batch_size {self._batch_size}, "
                f"{self.counts['train']} training images); batch norm needs at least 2; "
                "raise base_batch_size or add training images."
            )

    def train_batches(self, epoch: int) -> Iterator[Batch]:
        """Training batches of one epoch, the same for every number of loader processes.

        One pass at a time: a pass over training or evaluation data ends the one before it.

        Args:
            epoch: from 0.

        Yields:
            Images float32 [B, 3, S, S] and labels int64 [B].
        """
        return self._loader.batches(train_keys(self._parts["train"], self._batch_size, self._seed, epoch))

    def eval_batches(self, name: Literal["validation", "test"]) -> Iterator[Batch]:
        """Every image of a split once, in a fixed order.

        Args:
            name: the split; `validation` only with `use_validation`.

        Yields:
            Images float32 [B, 3, S, S] and labels int64 [B]; the last batch may be smaller.
        """
        assert self.counts[name], f"this run has no {name} split"
        return self._loader.batches(eval_keys(self._parts[name], self._batch_size))

    def velocity_images(self) -> torch.Tensor:
        """The images that velocities are measured on, as evaluated: float32 [n, 3, S, S]."""
        return self._loader.load([(None, int(index)) for index in self._parts["velocity"]])[0]

    def sample_batch(self) -> Batch:
        """The first training batch of epoch 0: images float32 [B, 3, S, S] and labels int64 [B]."""
        return self._loader.load(train_keys(self._parts["train"], self._batch_size, self._seed, 0)[0])

    def close(self) -> None:
        """End the loader processes."""
        self._loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_data(settings: DataProvider, entry: Entry, seed: int, pin_memory: bool = False) -> Data:
    """Open the data set that the settings name.

    Args:
        settings: the run's data settings, `image_size` resolved; its `mean_std` goes before the entry's.
        entry: the data set's catalog entry.
        seed: the run's seed (`manual_seed`).
        pin_memory: put batches into page-locked memory; for CUDA.

    Raises:
        UserError: the data set is unknown, cannot be read or split, or has another number of classes
            than `new_num_classes`.
    """
    if settings.dataset not in SOURCES:
        raise unknown_name("dataset", settings.dataset, SOURCES, "See neq datasets.")
    source = SOURCES[settings.dataset](settings.root)
    wanted = settings.new_num_classes
    if wanted is not None and wanted != len(source.classes):
        raise UserError(
            f"new_num_classes is {wanted}, but {settings.dataset} has {len(source.classes)} classes; "
            "remove new_num_classes or correct it."
        )
    mean_std = settings.mean_std or entry.mean_std
    return Data(source, settings, entry.augmentation, mean_std, seed, pin_memory)
