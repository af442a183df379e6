"""Covariate shift as a run: cross entropy on the source, whose images count by how they resemble the target.

The weights are those of `neq.adaptation.reweighting`, from logistic regression on the features of the network
that the run starts from: each image's probability is that of a classifier fitted without it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from neq.adaptation.reweighting import domain_ratio, effective_images, normalized
from neq.adaptation.weighted import Weighted
from neq.networks.heads import HeadInputs, head_name
from neq.utils.eval_mode import eval_mode

# The highest weight before their mean is made 1.
MOST = 10.0
_FOLDS = 5


class CovariateShift(Weighted):
    """Cross entropy on the source, with a weight for each image."""

    def _found(self) -> Tensor:
        """By the number of the image in the source, [n]; 0 for images that do not train."""
        source, numbers = self._features(self.domains.source.unlabelled_batches(None))
        target, _ = self._features(self.domains.target_batches(None))
        weights = domain_weights(source, target)
        of_all = torch.zeros(int(numbers.max()) + 1)
        of_all[numbers] = weights
        images = effective_images(weights)
        self._notes(f"weights of {len(weights)} source images: as varied as {images:.1f} equal ones")
        return of_all

    @torch.no_grad()
    def _features(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Features [n, F] of all images, and their numbers [n]."""
        places, head = [], self.network.get_submodule(head_name(self.network))
        with HeadInputs(head) as kept, eval_mode(self.network):
            for images, numbers in batches:
                self.network(images.to(self._device))
                places.append(numbers.cpu())
        return kept.features().cpu(), torch.cat(places)

    def _of(self, labels: Tensor, numbers: Tensor) -> Tensor:
        return numbers


def domain_weights(source: Tensor, target: Tensor) -> Tensor:
    """w [n_s] of the source images, of mean 1, in float32.

    Args:
        source, target: features, [n_s, F] and [n_t, F].
    """
    features = torch.cat([source, target]).double().numpy()
    is_source = [1] * len(source) + [0] * len(target)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    found = cross_val_predict(classifier, features, is_source, cv=folds, method="predict_proba")
    d = torch.from_numpy(found[: len(source), 1].copy())
    return normalized(domain_ratio(d, len(source), len(target)), MOST).float()
