"""How good a network is on its test split: figures computed from an evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from sklearn.metrics import (
    adjusted_rand_score,
    confusion_matrix,
    normalized_mutual_info_score,
    precision_recall_fscore_support,
    rand_score,
)

from neq.results.evaluation import Evaluation
from neq.tasks.classification import cross_entropy

BINS = 15
TSNE_IMAGES, PERPLEXITY = 1000, 30


@dataclass(frozen=True)
class Wrong:
    """A photo that was predicted wrong.

    Args:
        name: of the image.
        label: its class.
        predicted: the class that it was taken for.
        probability: of that class.
        photo: uint8 [S, S, 3].
    """

    name: str
    label: str
    predicted: str
    probability: float
    photo: NDArray[np.uint8]


@dataclass(frozen=True)
class Quality:
    """The figures of one evaluation; each is computed when it is first asked for.

    Args:
        evaluation: of N images of C classes.
    """

    evaluation: Evaluation

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return self.evaluation.labels.numpy()

    @cached_property
    def _predicted(self) -> NDArray[np.int64]:
        return self.evaluation.predicted.numpy()

    @property
    def accuracy(self) -> float:
        """Top-1, of 1."""
        return float((self._labels == self._predicted).mean())

    @property
    def loss(self) -> float:
        """Mean cross entropy in nats."""
        losses = cross_entropy(self.evaluation.logits, self.evaluation.labels, "none")
        return float(losses.double().mean())

    @cached_property
    def classes(self) -> DataFrame:
        """A row a class: class, images, precision, recall, f1; 0 where none was predicted or to be found."""
        numbers = range(len(self.evaluation.classes))
        found = precision_recall_fscore_support(
            self._labels, self._predicted, labels=list(numbers), zero_division=0
        )
        names = ("precision", "recall", "f1", "images")
        table = DataFrame(dict(zip(names, found, strict=True)))
        table.insert(0, "class", list(self.evaluation.classes))
        return table[["class", "images", "precision", "recall", "f1"]]

    @property
    def macro(self) -> dict[str, float]:
        """Precision, recall and F1, the mean over all classes; an absent class counts 0."""
        return {name: float(self.classes[name].mean()) for name in ("precision", "recall", "f1")}

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Images by class (rows) and predicted class (columns), [C, C]."""
        numbers = range(len(self.evaluation.classes))
        matrix: NDArray[np.int64] = confusion_matrix(self._labels, self._predicted, labels=list(numbers))
        return matrix

    def confused(self, most: int = 10) -> DataFrame:
        """The classes that are confused most: class, predicted, images, share (of the class's images).

        Args:
            most: pairs at most; of equal ones those of the first class.
        """
        wrong = self.confusion * (1 - np.eye(len(self.confusion), dtype=np.int64))
        names, totals = self.evaluation.classes, self.confusion.sum(1)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [divmod(int(at), len(wrong)) for at in order]
        rows = [
            (names[one], names[other], int(wrong[one, other]), wrong[one, other] / totals[one])
            for one, other in pairs
            if wrong[one, other]
        ]
        return DataFrame(rows, columns=["class", "predicted", "images", "share"])

    def wrong(self) -> list[Wrong]:
        """The photos that were predicted wrong with the highest probabilities."""
        found, names = self.evaluation, self.evaluation.classes
        shares = found.probabilities
        return [
            Wrong(
                found.names[number],
                names[int(self._labels[number])],
                names[int(self._predicted[number])],
                float(shares[number].max()),
                photo.permute(1, 2, 0).numpy(),
            )
            for number, photo in zip(found.wrong.tolist(), found.photos, strict=True)
        ]

    @cached_property
    def calibration(self) -> DataFrame:
        """A row for each bin of probabilities that has images: images, confidence, accuracy."""
        shares, predicted = self.evaluation.probabilities.double().max(1)
        return calibration(shares.numpy(), predicted.numpy() == self._labels)

    @property
    def ece(self) -> float:
        """Expected calibration error, of 1."""
        return calibration_error(self.calibration)

    @cached_property
    def clusters(self) -> dict[str, float] | None:
        """NMI, RI and ARI of K-means on the features, as many clusters as classes; none without features.

        K-means starts from a fixed seed, the best of 10 starts.
        """
        found = self.evaluation
        count = len(np.unique(self._labels[found.featured.numpy()])) if len(found.features) else 0
        if count < 2 or not bool(torch.isfinite(found.features).all()):
            return None
        with warnings.catch_warnings(action="ignore"):  # fewer distinct features than clusters
            grouped = KMeans(count, n_init=10, random_state=0).fit_predict(found.features.numpy())
        return cluster_scores(self._labels[found.featured.numpy()], grouped)

    @cached_property
    def map(self) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """t-SNE of the features of at most 1,000 images, [n, 2], and their labels [n].

        None of fewer than 10 images, and of features that are all the same.
        """
        found = self.evaluation
        if len(found.features) < 10 or not bool(torch.isfinite(found.features).all()):
            return None
        step = -(-len(found.features) // TSNE_IMAGES)
        features, numbers = found.features[::step].numpy(), found.featured[::step].numpy()
        near = min(PERPLEXITY, (len(features) - 1) / 3)
        if not np.ptp(features, axis=0).any():  # scikit-learn's ends the process by a segmentation fault
            return None
        places = TSNE(perplexity=near, init="pca", random_state=0).fit_transform(features)
        return places, self._labels[numbers]


def cluster_scores(labels: Sequence[int], clusters: Sequence[int]) -> dict[str, float]:
    """How well clusters are classes: NMI (arithmetic mean), RI and ARI.

    Args:
        labels: of the images.
        clusters: the number of each image's cluster.
    """
    scores: dict[str, Any] = {
        "nmi": normalized_mutual_info_score(labels, clusters),
        "ri": rand_score(labels, clusters),
        "ari": adjusted_rand_score(labels, clusters),
    }
    return {name: float(score) for name, score in scores.items()}


def calibration(shares: NDArray[np.float64], hits: NDArray[np.bool_], bins: int = BINS) -> DataFrame:
    """Images by the probability of their prediction, in bins ((k - 1) / bins, k / bins].

    Args:
        shares: the highest probability of each image, [N].
        hits: whether its prediction is right, [N].
        bins: of equal widths.

    Returns:
        A row for each bin that has images: bin (from 0), images, confidence (mean probability) and accuracy.
    """
    numbers = np.clip(np.ceil(shares * bins).astype(int) - 1, 0, bins - 1)
    table = DataFrame({"bin": numbers, "confidence": shares, "accuracy": hits.astype(float)})
    found = table.groupby("bin").agg(
        images=("accuracy", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    return found.reset_index()


def calibration_error(bins: DataFrame) -> float:
    """The expected calibration error: ECE = sum over bins of n_b / N |accuracy_b - confidence_b|.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        bins: as of `calibration`.
    """
    weights = bins["images"] / bins["images"].sum()
    return float((weights * (bins["accuracy"] - bins["confidence"]).abs()).sum())
