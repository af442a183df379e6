"""The data of one run: a data set by name, split and transformed, as deterministic batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Literal, Self, TypeVar

import numpy as np
import PIL
import torch
import torchvision
from torchvision.transforms import v2

from neq.config.catalog import DatasetEntry
from neq.config.paths import cache_folder
from neq.config.schema import Augmentation, DataProvider, MeanStd
from neq.data.caching import Read, plan_cache
from neq.data.checking import check_images, describe_skipped
from neq.data.copies import copies_note
from neq.data.disk_memo import file_stamp
from neq.data.loading import Batch, Images, Key, Loader, eval_keys, train_keys
from neq.data.map_stores import DiskMaps, MapStore, MemoryMaps
from neq.data.mapped import Maps, mapped_batches
from neq.data.registry import open_source
from neq.data.sources import Source
from neq.data.splits import resplit, split, velocity_note
from neq.data.transforms import eval_transform, normalization, train_transform
from neq.utils.errors import UserError
from neq.utils.seeds import generator

CPU = torch.device("cpu")
T = TypeVar("T")


class Data:
    """The data of one run; a context manager that ends its loader processes.

    Attributes:
        classes: the class names, in the order of the labels.
        counts: images of `train`, `validation`, `velocity` and `test`.
        fingerprint: identifies this copy of the images; None if there is only one.
        notes: lines for the user about how the data was read.
        is_augmented: whether training images are augmented at random.
        skipped: the files of the images that cannot be read and were left out.
        steps_per_epoch: training batches of an epoch.
        share: fraction of a training batch that this rank loads, in (0, 1].

    Args:
        source: the data set.
        settings: the run's data settings, `image_size` resolved.
        augmentation: of training images.
        mean_std: input normalization.
        seed: the run's seed.
        device: where batches are normalized and returned.
        rank: of this process, 0 <= rank < processes.
        processes: number of processes that share each batch.

    Raises:
        UserError: an image cannot be read, the data cannot be split, or a process would get fewer than two
            images of a training batch.
    """

    def __init__(
        self,
        source: Source,
        settings: DataProvider,
        augmentation: Augmentation,
        mean_std: MeanStd,
        seed: int,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        size = settings.image_size
        assert size is not None, "image_size is resolved before data is opened"
        total = len(source.labels)
        source, self.skipped = check_images(source, settings.on_bad_image)
        self._parts = split(source, settings, seed)
        self._batch_size = settings.base_batch_size
        self._test_batch_size = settings.test_batch_size or settings.base_batch_size
        self._seed, self._sampling, self._views = seed, settings.sampling, settings.views
        self._device = device
        self._size, self._rank, self._processes = size, rank, processes
        self._normalize = normalization(mean_std)
        self._train_maps: Maps | None = None
        self._eval_maps: Maps | None = None
        shown = (settings.dataset, source.fingerprint, source.variant, size, augmentation, mean_std)
        self._stamp = partial(file_stamp, source.files, PIL.__version__, torchvision.__version__, *shown)
        self._drawn_by = (seed, settings.resize_scale, settings.color_aug)
        self.classes = source.classes
        self.counts = {name: len(part) for name, part in self._parts.items()}
        self.fingerprint = source.fingerprint
        self._files = source.files
        self._check_batch()
        batch = min(self._batch_size, self.counts["train"])
        self.share = len(self._local(range(batch))) / batch
        self.steps_per_epoch = max(1, self.counts["train"] // self._batch_size)

        random = train_transform(settings, size, augmentation) if augmentation != "none" else None
        resized = partial(_resized, source.image, eval_transform(size, augmentation))
        self._labels = torch.as_tensor(source.labels)
        self._images = Images(source.image, resized, source.labels, random, seed)
        plan = plan_cache(settings, source, self._parts, augmented=random is not None)
        name = f"{'photo' if augmentation == 'photo' else 'square'}-{size}"
        self.is_augmented = random is not None
        self._keeps_on_disk, self._cache_limit = settings.cache == "disk", plan.limit
        self._cache_expected = plan.expected if plan.kind == "memory" else 0
        self._fill_cache = partial(plan.build, source, resized, name, settings.n_worker)
        self._loader = Loader(self._images, settings.n_worker, pin_memory=device.type == "cuda")
        classes = settings.new_num_classes
        has = f"{settings.dataset} has {len(self.classes)} classes"
        lines = [
            describe_skipped(self.skipped, total) if self.skipped else None,
            velocity_note(self.counts, settings),
            copies_note(source, self._parts),
            None if classes in (None, len(self.classes)) else f"ignoring new_num_classes={classes}: {has}",
        ]
        self.notes = (*source.notes, *filter(None, lines), *plan.notes)

    def evaluated_by(self, images: int) -> Data:
        """The same data, evaluated in batches of another size.

        Args:
            images: of a batch.
        """
        other = copy.copy(self)
        other._test_batch_size = images
        return other

    def mapped(self, train: Maps | None, evaluation: Maps | None) -> Data:
        """The same data, with maps in place of images.

        Args:
            train: of the images of `train_batches`; None: the images themselves.
            evaluation: of those of `eval_batches`.
        """
        other = copy.copy(self)
        other._train_maps, other._eval_maps = train, evaluation
        return other

    @cached_property
    def map_store(self) -> MapStore:
        """Where maps are kept: on disk under `cache: disk`, else in memory, beside the images."""
        if self._keeps_on_disk:
            return DiskMaps(cache_folder() / "maps", self._cache_limit)
        return MemoryMaps(max(0, self._cache_limit - self._cache_expected))

    @property
    def views(self) -> int | None:
        """How many views a training image has; None: one of its own in every epoch."""
        return self._views if self.is_augmented else 1

    def pixels(self, train: bool) -> str:
        """A key that changes with what training images look like, or those of evaluations."""
        return f"{self._stamp()} {self._drawn_by if train and self.is_augmented else ''}"

    def _check_batch(self) -> None:
        smallest = min(self._batch_size, self.counts["train"])
        if smallest < 2 * self._processes:
            raise UserError(
                f"a training batch of {smallest} images (base_batch_size {self._batch_size}, "
                f"{self.counts['train']} training images) leaves one of {self._processes} process(es) with "
                "fewer than the 2 that batch norm needs; raise base_batch_size, add training images or start "
                "fewer processes"
            )

    def train_batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Training batches of one epoch, the same for any number of loader processes.

        Only one pass at a time: starting a pass over training or evaluation data ends the previous one.

        Args:
            epoch: from 0.
            first: number of the first batch; earlier ones are not loaded.

        Yields:
            Images float32 [B, 3, S, S] and labels int64 [B]; each rank gets its share of the B.
        """
        return self._batches(self._train_keys(epoch)[first:], self._train_maps)

    def _train_keys(self, epoch: int) -> list[list[Key]]:
        """The training batches of one epoch, of all ranks together."""
        weights = None
        if self._sampling == "balanced":
            weights = 1 / self.train_images_by_class()[self._labels[self._parts["train"]]]
        return train_keys(self._parts["train"], self._batch_size, self._seed, epoch, weights, self._views)

    def whole_train_labels(self, epoch: int) -> torch.Tensor:
        """The labels of the training batches of one epoch, of all ranks together.

        Returns:
            int64 [steps, B]; `own` are those that this rank's `train_batches` yield.
        """
        return self._labels[
            torch.tensor([[index for _, index in batch] for batch in self._train_keys(epoch)])
        ]

    @property
    def own(self) -> slice:
        """The places of this rank's images in a whole training batch."""
        return slice(self._rank, None, self._processes)

    def train_images_by_class(self) -> torch.Tensor:
        """How many training images each class has, int64 [K]."""
        return torch.bincount(self._labels[self._parts["train"]], minlength=len(self.classes))

    def train_numbers(self, epoch: int, first: int = 0) -> Iterator[torch.Tensor]:
        """The numbers in the data set of the images in `train_batches`, int64 [B] of each batch."""
        keys = train_keys(self._parts["train"], self._batch_size, self._seed, epoch)[first:]
        return (torch.tensor([index for _, index in self._local(batch)]) for batch in keys)

    def unlabelled_batches(self, epoch: int | None, first: int = 0) -> Iterator[Batch]:
        """Images of all splits together, without their labels; one pass at a time, as of `train_batches`.

        Args:
            epoch: from 0: batches of training images; None: every image once as for evaluation, in batches of
                nearly equal sizes, those of training at most, and a random order, the same for every seed:
                folders are sorted by class.
            first: number of the first batch.

        Yields:
            Images float32 [B, 3, S, S] and their numbers in the data set, int64 [B]; of each rank its share.
        """
        every = np.sort(np.concatenate([*self._parts.values()]))
        if epoch is None:
            plan = self._mixed_keys(every, self._batch_size)[first:]
        else:
            plan = train_keys(every, self._batch_size, self._seed, epoch, views=self._views)[first:]
        shares = filter(None, map(self._local, plan))
        numbers = (torch.tensor([index for _, index in keys]) for keys in shares)
        return ((images, own) for (images, _), own in zip(self._batches(plan), numbers, strict=True))

    def eval_batches(self, name: Literal["validation", "test", "train", "velocity"]) -> Iterator[Batch]:
        """Every image of a split exactly once, in a fixed order.

        Args:
            name: of the split; `validation` requires `use_validation`.

        Yields:
            Images float32 [B, 3, S, S] and labels int64 [B]; the last batch may be smaller. Each rank gets
            its share; together the ranks get every image once.
        """
        assert self.counts[name], f"this run has no {name} split"
        return self._batches(eval_keys(self._parts[name], self._test_batch_size), self._eval_maps)

    def names(self, name: Literal["validation", "test", "train", "velocity"]) -> tuple[str, ...]:
        """The files of a split's images, in the order of `eval_batches`; `image N` of one in memory."""
        return tuple(
            self._files[number] if self._files else f"image {number}" for number in self._parts[name]
        )

    def whole_batches(self, name: Literal["validation", "test", "train"], images: int) -> Iterator[Batch]:
        """Every image of a split once, in batches that one rank each gets whole: for statistics of batches.

        The order is a random one, the same for every seed: images in folders are sorted by class.

        Args:
            name: as of `eval_batches`.
            images: the most of a batch; all are of nearly equal sizes.

        Yields:
            As `eval_batches`.
        """
        plan = self._mixed_keys(self._parts[name], images)
        self.fill_cache()
        return map(self._finished, self._loader.batches(plan[self._rank :: self._processes]))

    @staticmethod
    def _mixed_keys(indices: np.ndarray, most: int) -> list[list[Key]]:
        """Batches of nearly equal sizes for evaluation, in a random order that is the same for every seed."""
        order = torch.randperm(len(indices), generator=generator(0, "whole batches")).numpy()
        batches = np.array_split(indices[order], -(-len(indices) // most))
        return [[(None, int(index)) for index in batch] for batch in batches]

    def velocity_images(self) -> torch.Tensor:
        """The images for velocities, transformed as for evaluation: float32 [n, 3, S, S].

        Each rank gets its share, which may be empty.
        """
        keys: list[Key] = self._local([(None, int(index)) for index in self._parts["velocity"]])
        if not keys:
            return torch.empty(0, 3, self._size, self._size, device=self._device)
        return self._loaded_now(keys)[0]

    def _batches(self, plan: list[list[Key]], maps: Maps | None = None) -> Iterator[Batch]:
        shares = [keys for keys in map(self._local, plan) if keys]
        return self._loaded(shares) if maps is None else self._mapped(shares, maps)

    def _loaded(self, shares: list[list[Key]]) -> Iterator[Batch]:
        self.fill_cache()
        return map(self._finished, self._loader.batches(shares))

    def _mapped(self, shares: list[list[Key]], maps: Maps) -> Iterator[Batch]:
        if not self.is_augmented:
            shares = [[(None, index) for _, index in keys] for keys in shares]
        found = mapped_batches(maps, shares, self._loaded, self._loaded_now)
        labels = (self._labels[[index for _, index in keys]] for keys in shares)
        return zip(found, labels, strict=True)

    def _loaded_now(self, keys: list[Key]) -> Batch:
        """One batch, without disturbing a running pass."""
        self.fill_cache()
        return self._finished(self._loader.load(keys))

    def _local(self, whole: Sequence[T]) -> list[T]:
        """The items of a batch that this rank loads: every n-th, so n ranks differ by at most one item."""
        return list(whole[self.own])

    def fill_cache(self) -> None:
        """Fill the cache once, before loader processes start and inherit it."""
        if not self._images.is_cached:
            self._images.decoded, self._images.resized = self._fill_cache()
            self._images.is_cached = True

    def _finished(self, batch: Batch) -> Batch:
        images, labels = batch
        return self._normalize(images.to(self._device, non_blocking=True)), labels

    def close(self) -> None:
        """End the loader processes."""
        self._loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_source(settings: DataProvider) -> Source:
    """The data set of a run: by name, under its corruption, in its splits; downloaded first if needed.

    Args:
        settings: the run's data settings.

    Raises:
        UserError: the data set or the corruption is unknown, or the data cannot be downloaded, read or split.
    """
    source = open_source(settings.dataset, settings.root, settings.corruption)
    return resplit(source, settings.split_shares, settings.split_of) if settings.split_shares else source


def open_data(
    settings: DataProvider,
    entry: DatasetEntry,
    seed: int,
    device: torch.device = CPU,
    rank: int = 0,
    processes: int = 1,
) -> Data:
    """Open the data set that the settings name; it is downloaded first if that is needed and possible.

    Args:
        settings: the run's data settings, `image_size` resolved; its `mean_std` and `augmentation` override
            those of the entry.
        entry: the data set's catalog entry.
        seed: the run's seed (`manual_seed`).
        device: where batches are normalized and returned.
        rank: of this process, 0 <= rank < processes.
        processes: number of processes that share each batch.

    Raises:
        UserError: the data set is unknown, cannot be downloaded, read or split.
    """
    source = run_source(settings)
    augmentation = settings.augmentation or entry.augmentation
    mean_std = settings.mean_std or entry.mean_std
    return Data(source, settings, augmentation, mean_std, seed, device, rank, processes)


def _resized(read: Read, transform: v2.Transform, index: int) -> torch.Tensor:
    """Image `index` resized for evaluation, uint8 [3, S, S]."""
    image: torch.Tensor = transform(read(index))
    return image
