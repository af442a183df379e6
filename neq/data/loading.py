"""The deterministic loader: batches depend only on the seed and the epoch.

A key (view, image) determines what is loaded, so loader processes share no state: their number changes no
batch, and an epoch can be restarted at any point. The global random states of torch, numpy and Python are not
changed.
"""

from __future__ import annotations

import signal
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from neq.data.caching import Read
from neq.utils.errors import UserError
from neq.utils.seeds import generator, seed_for

# View and image, which seed its augmentation: the epoch, unless images have a number of views; None for
# evaluation.
Key = tuple[int | None, int]
# Added to the epoch for each time that an image came before in it; more than any run has epochs.
_AGAIN = 2**32
Batch = tuple[torch.Tensor, torch.Tensor]
Item = tuple[torch.Tensor, int]


def train_keys(
    indices: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    weights: torch.Tensor | None = None,
    views: int | None = None,
) -> list[list[Key]]:
    """The batches of one training epoch.

    Args:
        indices: int64 [n], the training images.
        batch_size: images per batch; an incomplete last batch is dropped unless it is the only one.
        seed: the run's seed.
        epoch: from 0.
        weights: by which as many images are drawn with replacement, [n]; none: each comes once.
        views: that each image has, which epochs take in turn; none: one of its own in every epoch.
    """
    stream = generator(seed, "order", epoch)
    if weights is None:
        order = torch.randperm(len(indices), generator=stream).numpy()
    else:
        order = torch.multinomial(weights, len(indices), replacement=True, generator=stream).numpy()
    size = min(batch_size, len(indices))
    batches = order[: len(order) // size * size].reshape(-1, size)
    if weights is None:
        view = epoch if views is None else epoch % views
        return [[(view, int(index)) for index in indices[batch]] for batch in batches]
    drawn = Counter[int]()
    keys: list[list[Key]] = []
    for batch in batches:
        keys.append([])
        for index in map(int, indices[batch]):
            # Each time an image comes again in an epoch it is augmented anew, as far as it has views.
            again = drawn[index]
            view = epoch + _AGAIN * again if views is None else (epoch + again) % views
            keys[-1].append((view, index))
            drawn[index] += 1
    return keys


def eval_keys(indices: np.ndarray, batch_size: int) -> list[list[Key]]:
    """The batches of an evaluation: every image once, in order; the last batch may be smaller.

    Args:
        indices: int64 [n], the images.
        batch_size: images per batch.
    """
    keys: list[Key] = [(None, int(index)) for index in indices]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]


class Images(Dataset[Item | UserError]):
    """Images by key, sized for the network.

    Args:
        decoded: returns an image as decoded, uint8 [3, H, W].
        resized: returns an image resized for evaluation, uint8 [3, S, S].
        labels: int64 [n].
        training: uint8 [3, H, W] -> uint8 [3, S, S], with randomness from torch's global CPU generator; None:
            training images are read like evaluation images.
        seed: the run's seed.
    """

    def __init__(
        self, decoded: Read, resized: Read, labels: np.ndarray, training: v2.Transform | None, seed: int
    ) -> None:
        self.decoded = decoded
        self.resized = resized
        self._labels = labels
        self._training = training
        self._seed = seed

    def __getitem__(self, key: Key) -> Item | UserError:
        """One image uint8 [3, S, S] and its label.

        A UserError is returned, not raised, as a loader process would wrap it in a traceback.
        """
        view, index = key
        try:
            if view is None or self._training is None:
                image = self.resized(index)
            else:
                image = self._augmented(index, view, self._training)
        except UserError as error:
            return error
        return image, int(self._labels[index])

    def _augmented(self, index: int, view: int, transform: v2.Transform) -> torch.Tensor:
        image = self.decoded(index)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed the accelerators too.
            torch.default_generator.manual_seed(seed_for(self._seed, "augmentation", view, index))
            return transform(image)


class Loader:
    """Loader of batches of keys, in this process or in worker processes that live until `close`.

    Args:
        images: the images by key.
        n_worker: number of loader processes, one pool for training and evaluation; 0: none.
        pin_memory: put batches into page-locked memory; for CUDA.
    """

    def __init__(self, images: Images, n_worker: int, pin_memory: bool) -> None:
        self._images = images
        self._plan: list[list[Key]] = []
        self._passes = 0
        with warnings.catch_warnings(action="ignore"):  # more workers than CPUs
            self._loader = DataLoader(
                images,
                batch_sampler=self._plan,
                num_workers=n_worker,
                collate_fn=_collate,
                pin_memory=pin_memory,
                persistent_workers=n_worker > 0,
                worker_init_fn=_ignore_signals,
                generator=torch.Generator(),  # otherwise every pass would draw from the global one
            )

    def batches(self, plan: Sequence[list[Key]]) -> Iterator[Batch]:
        """Load batches one after another; a new pass ends the previous one.

        Args:
            plan: the keys of each batch.

        Yields:
            Images uint8 [B, 3, S, S] and labels int64 [B].

        Raises:
            UserError: an image cannot be read.
        """
        self._plan[:] = plan
        self._passes += 1
        this_pass = self._passes
        for batch in self._loader:
            yield _raised(batch)
            assert self._passes == this_pass, "another pass over the data began before this one ended"

    def load(self, keys: Sequence[Key]) -> Batch:
        """Load one batch in this process, without disturbing a running pass.

        Args:
            keys: the images of the batch.

        Raises:
            UserError: an image cannot be read.
        """
        return _raised(_collate([self._images[key] for key in keys]))

    def close(self) -> None:
        """End the loader processes."""
        # DataLoader has no public way to end persistent workers other than garbage collection.
        shutdown = getattr(self._loader._iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()
        self._loader._iterator = None


def _collate(items: Sequence[Item | UserError]) -> Batch | UserError:
    """Stack a batch, or return the first error in it."""
    images, labels = [], []
    for item in items:
        if isinstance(item, UserError):
            return item
        images.append(item[0])
        labels.append(item[1])
    return default_collate(images), torch.tensor(labels)


def _raised(batch: Batch | UserError) -> Batch:
    """The batch; raise it if it is an error."""
    if isinstance(batch, UserError):
        raise batch
    return batch


def _ignore_signals(worker: int) -> None:
    """Ignore signals to the process group, such as Ctrl-C: the parent handles them and ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
