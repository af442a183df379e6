"""Training targets of classification: label smoothing, class weights, mixup and CutMix.

An image has a target q over the K classes instead of a label, and the loss of a batch of n images is their
cross entropy

    L = 1/n sum_i sum_c q_ic (-ln p_ic),    q_ic = w_c ((1 - s) t_ic + s / K) / v
    v = 1/n sum_i sum_c w_c t_ic

with the label smoothing s, the class weights w and t one-hot, or a mixture l t_i + (1 - l) t_j of the labels
of two images: torch's cross entropy with `weight` and `label_smoothing`. Without weights the loss of a
mixture is l CE(y_i) + (1 - l) CE(y_j).

An image at place i of a batch of B is mixed with the one at place i + B // 2 (mod B); the shares l and the
pasted boxes are drawn by (seed, epoch, step, place). So what is drawn depends neither on the processes that
share a batch, nor on micro-batches, nor on where a run was interrupted.

Sources: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016 (smoothing); Zhang et al., "mixup:
Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neq.config import Config
from neq.data import Data
from neq.utils.errors import UserError
from neq.utils.seeds import seed_for


@dataclass(frozen=True)
class Mixing:
    """How the images of a whole batch are mixed with their partners.

    Args:
        shares: l of an image's own label, float32 [B].
        boxes: pixels y0, y1, x0, x1 of the box that is pasted from the partner, int64 [B, 4]; where it is
            empty the images are blended by l.
    """

    shares: Tensor
    boxes: Tensor

    def mixed(self, images: Tensor, own: slice) -> Tensor:
        """The images of this process, [b, 3, S, S], mixed; partners lie half of them further."""
        partners = images.roll(-(len(images) // 2), 0)
        boxes, shares = self.boxes[own], self.shares[own]
        pasted = boxes[:, 1] * boxes[:, 3] > 0
        shares = torch.where(pasted, 1.0, shares).to(images)[:, None, None, None]
        mixed = partners.lerp(images, shares)
        for place in pasted.nonzero().flatten().tolist():
            y0, y1, x0, x1 = boxes[place].tolist()
            mixed[place, :, y0:y1, x0:x1] = partners[place, :, y0:y1, x0:x1]
        return mixed


def draw_mixing(mixup: float, cutmix: float, images: int, size: int, seed: int) -> Mixing:
    """Draws how a batch is mixed; with both methods each image draws one of them.

    Args:
        mixup, cutmix: a of Beta(a, a), above 0 for one of them.
        images: B.
        size: S, pixels a side.
        seed: of the batch.
    """
    draws = np.random.default_rng(seed)
    pastes = draws.random(images) < (0.5 if mixup and cutmix else float(cutmix > 0))
    blended, areas = (draws.beta(a or 1.0, a or 1.0, images) for a in (mixup, cutmix))
    centres = draws.integers(size, size=(images, 2))
    half = np.rint(size * np.sqrt(1 - areas) / 2).astype(np.int64)[:, None]
    low, high = (centres - half).clip(0, size), (centres + half).clip(0, size)
    low, high = (np.where(pastes[:, None], edge, 0) for edge in (low, high))
    boxes = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1)
    shares = np.where(pastes, 1 - (high - low).prod(1) / size**2, blended)
    return Mixing(torch.as_tensor(shares, dtype=torch.float32), torch.as_tensor(boxes))


class Targets:
    """The training targets of a run.

    Args:
        data: the run's; its batches get the targets.
        smoothing: s, 0 <= s < 1.
        weights: w [K]; none: all 1.
        mixup, cutmix: as of `draw_mixing`; 0: none.
        seed: the run's seed.

    Raises:
        UserError: several processes share a batch whose partners would lie in different ones.
    """

    def __init__(
        self, data: Data, smoothing: float, weights: Tensor | None, mixup: float, cutmix: float, seed: int
    ) -> None:
        self._data, self._smoothing, self._seed = data, smoothing, seed
        classes = len(data.classes)
        self._weights = torch.ones(classes) if weights is None else weights
        self._mixup, self._cutmix = mixup, cutmix
        batch, processes = data.whole_train_labels(0).shape[1], data.own.step
        if self.mixes and processes > 1 and batch % (2 * processes):
            raise UserError(
                f"mixup and cutmix pair the images of a batch within a process: {batch} images are not a "
                f"multiple of 2 x {processes} processes; give another base_batch_size, or start one process"
            )

    @classmethod
    def of_run(cls, config: Config, data: Data) -> Self | None:
        """Those of the settings; None where labels are the targets.

        Raises:
            UserError: as many class weights as classes are expected.
        """
        run, given = config.run_config, config.run_config.class_weights
        if not (run.label_smoothing or given or run.mixup or run.cutmix):
            return None
        weights = None
        if given == "balanced":
            weights = balanced_weights(data.train_images_by_class())
        elif given is not None:
            weights = torch.tensor(given)
            if len(weights) != len(data.classes):
                raise UserError(
                    f"class_weights has {len(weights)} weights, but the data set has {len(data.classes)} "
                    "classes; give one for each of them, in the order of their names, or balanced"
                )
        return cls(data, run.label_smoothing, weights, run.mixup, run.cutmix, config.manual_seed)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another."""
        return bool(self._mixup or self._cutmix)

    def of_batches(
        self, batches: Iterable[tuple[Tensor, ...]], epoch: int, start: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches with their targets.

        Args:
            batches: training batches of an epoch, from the first on.
            epoch: from 0.
            start: number of the first of them.

        Yields:
            Images, mixed; the labels with the largest share [b]; q [b, K].
        """
        own, of_epoch = self._data.own, self._data.whole_train_labels(epoch)
        for step, (images, labels) in enumerate(batches, start):
            whole, mixing = F.one_hot(of_epoch[step], len(self._weights)).float(), None
            if self.mixes:
                seed = seed_for(self._seed, "mixup", epoch, step)
                mixing = draw_mixing(self._mixup, self._cutmix, len(whole), images.shape[-1], seed)
                partners = whole.roll(-(len(whole) // 2), 0)
                whole = partners.lerp(whole, mixing.shares[:, None])
                images = mixing.mixed(images, own)
                labels = whole[own].argmax(1)
            yield images, labels, self._weighted(whole)[own]

    def _weighted(self, whole: Tensor) -> Tensor:
        """q of t, both of all images of a batch, [B, K]."""
        smooth = (1 - self._smoothing) * whole + self._smoothing / whole.shape[1]
        return self._weights * smooth * (len(whole) / (self._weights * whole).sum())


def balanced_weights(images: Tensor) -> Tensor:
    """w_c = n / (K n_c), so that each of the K classes that have images weighs the same; float32 [classes].

    Args:
        images: n_c, int64 [classes]; n is their sum.
    """
    return torch.where(images > 0, images.sum() / ((images > 0).sum() * images.clamp_min(1)), 0.0).float()
