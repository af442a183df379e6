"""How far the features of two domains lie apart: the proxy A-distance, and a map of them by t-SNE.

    d_A = 2 (1 - 2 e)

e is the held-out error of a linear classifier of domains; d_A is 0 where they cannot be told apart, 2 where
they can. It need not follow accuracy, and the axes of two maps do not compare.

Source: Ben-David et al., "A Theory of Learning from Different Domains", Machine Learning 79, 2010; van der
Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from neq.adaptation.domains import Domains
from neq.config import DataProvider, dataset
from neq.data import Data, open_data
from neq.experiment.network import open_network
from neq.networks.heads import HeadInputs, head_name
from neq.results.best_network import load_best
from neq.results.run_pictures import save_figure
from neq.tasks import TaskInputs
from neq.utils.errors import UserError
from neq.utils.eval_mode import eval_mode
from neq.wings.adaptation import PREFIX

MOST_IMAGES = 1000
_FOLDS, _PERPLEXITY = 5, 30.0
Features = NDArray[np.float64]


@dataclass(frozen=True)
class Apart:
    """Features of both domains, by the network that a run started from and by its best one.

    Args:
        before, after: features [n, F] of source and target.
    """

    before: tuple[Features, Features]
    after: tuple[Features, Features]


def features_of_run(folder: Path) -> Apart:
    """The features of up to MOST_IMAGES images of each domain of a run.

    Raises:
        UserError: it is no adaptation, or its images or weights are not where they were.
    """
    best = load_best(folder)
    config, cpu = best.config, torch.device("cpu")
    if not config.objective.startswith(PREFIX):
        raise UserError(f"{folder} holds a run of objective {config.objective!r}; give one of neq adapt")
    start, _ = open_network(config, len(best.classes))
    with ExitStack() as closed:

        def opened(data: DataProvider) -> Data:
            return closed.enter_context(open_data(data, dataset(data.dataset), config.manual_seed, cpu))

        source = opened(config.data_provider)
        domains = Domains.of_run(TaskInputs(config, source, cpu, start, opened))
        found: dict[str, list[Any]] = {"before": [], "after": []}
        for batches in (domains.source_images, domains.target_images):
            for name, network in (("before", start), ("after", best.network)):
                found[name].append(_features(network, batches()))
    return Apart((found["before"][0], found["before"][1]), (found["after"][0], found["after"][1]))


@torch.no_grad()
def _features(network: nn.Module, batches: Iterable[Tensor]) -> Features:
    seen = 0
    with HeadInputs(network.get_submodule(head_name(network))) as kept, eval_mode(network):
        for images in islice(batches, MOST_IMAGES):
            network(images)
            if (seen := seen + len(images)) >= MOST_IMAGES:
                break
        return np.asarray(kept.features()[:MOST_IMAGES].double())


def a_distance(source: Features, target: Features) -> float:
    """d_A, 0 .. 2, of as many images of each domain, held out in five folds.

    Args:
        source, target: features, [n_s, F] and [n_t, F], in a random order.
    """
    images = min(len(source), len(target))
    features = np.concatenate([source[:images], target[:images]])
    domains = np.repeat([0, 1], images)
    order = np.random.default_rng(0).permutation(2 * images)
    classifier = make_pipeline(StandardScaler(), LinearSVC(C=0.01, dual="auto", random_state=0))
    accuracy = cross_val_score(classifier, features[order], domains[order], cv=_FOLDS).mean()
    return max(0.0, 2 * (1 - 2 * (1 - float(accuracy))))


def draw_domains(apart: Apart, path: Path, title: str) -> None:
    """Maps of both domains before and after training, and the A-distance of each.

    Args:
        apart: of a run.
        path: of the PNG.
        title: of the picture.
    """
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("before", "after"), strict=True):
        source, target = getattr(apart, name)
        points = _map(np.concatenate([source, target]))
        for mark, label, own in (
            ("o", "source", points[: len(source)]),
            ("x", "target", points[len(source) :]),
        ):
            axes.scatter(*own.T, s=10, marker=mark, linewidths=0.7, label=label)
        axes.set_title(f"{name}: A-distance {a_distance(source, target):.2f}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _map(features: Features) -> Features:
    """t-SNE in two dimensions, from PCA and with a fixed seed."""
    scaled = StandardScaler().fit_transform(features)
    perplexity = min(_PERPLEXITY, (len(scaled) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(scaled))
