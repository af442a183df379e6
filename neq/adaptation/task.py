"""What all methods of adaptation share: rounds of the target, and how networks are evaluated and chosen.

An epoch is a round, one pass over the target's images. The network is tested on the target's test split,
which the labelled row does not train on, and as `top1_all` on all images, which unlabelled training sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

import neq.adaptation.head_rate  # noqa: F401  (its rule)
from neq.adaptation.bottleneck import start_weights, with_bottleneck
from neq.adaptation.domains import Domains
from neq.adaptation.scores import information, neighbourhood_density
from neq.adaptation.statistics import adapt_statistics
from neq.config import Config, section_of
from neq.data import Data
from neq.tasks import Classification, Counts, Forward, Task, TaskInputs
from neq.tasks.classification import LabelledBatch, classification_scores, count_hits, cross_entropy
from neq.utils.errors import UserError
from neq.wings.adaptation import AdaptationSettings

LABEL_FREE = {"im": information, "snd": neighbourhood_density}


class Adaptation(Task[Any]):
    """A network that is tested on the target.

    Attributes:
        has_sharpness: whether a step follows `sharpness_radius`.

    Args:
        inputs: of the run.
        domains: its data sets.
    """

    has_sharpness: ClassVar[bool] = False

    def __init__(self, inputs: TaskInputs, domains: Domains) -> None:
        self.domains, self.network = domains, inputs.network
        self.settings = section_of(inputs.config, AdaptationSettings)
        run = inputs.config.run_config
        self.share = domains.share
        self.steps_per_epoch = domains.rounds
        self._epochs = run.n_epochs + run.warmup_epochs
        by = self.settings.select_by
        self.best_by = by if by in LABEL_FREE else "top1"
        self._source = Classification(domains.source, inputs.device)
        self._check(inputs)

    @classmethod
    def of_run(cls, inputs: TaskInputs) -> Self:
        """The task of the run's settings.

        Raises:
            UserError: two data sets that do not belong together, or settings that contradict each other.
        """
        return cls(inputs, Domains.of_run(inputs))

    @classmethod
    def start_weights(cls, config: Config) -> str:
        """Those of the settings; a file with a bottleneck is loaded when the network has one."""
        return start_weights(config)

    @classmethod
    def prepared(cls, network: nn.Module, config: Config) -> nn.Module:
        """The network with the bottleneck of its settings."""
        return with_bottleneck(network, config)

    def _check(self, inputs: TaskInputs) -> None:
        if self.settings.sharpness_radius is not None and not self.has_sharpness:
            raise UserError(
                f"sharpness_radius is not allowed with objective {inputs.config.objective!r}; leave it out, "
                "or take a method whose loss reads both domains in a step, as adapt_mcc or adapt_cdan_e"
            )
        by, validates = self.settings.select_by, inputs.config.data_provider.use_validation
        if validates != (by != "last"):
            other = "use_validation true" if not validates else "select_by 'source', or use_validation false"
            raise UserError(
                f"select_by {by!r} is not allowed with use_validation {str(validates).lower()}; give {other}"
            )
        if self.share < 1 and (by in LABEL_FREE or self.settings.adapt_statistics):
            raise UserError(
                f"select_by {by!r} with adapt_statistics {str(self.settings.adapt_statistics).lower()} needs "
                "all target images in one process; start one"
            )

    def progress(self, epoch: int, step: int) -> float:
        """The part of the run that lies before a step, 0 .. 1."""
        return (epoch * self.steps_per_epoch + step) / (self._epochs * self.steps_per_epoch)

    def begin(self, epoch: int, start: int) -> None:
        """What comes before an epoch's batches: at the start of the run, statistics of the target."""
        if (epoch, start) == (0, 0) and self.settings.adapt_statistics:
            adapt_statistics(self.network, self.domains.target_images())

    def velocity_data(self, data: Data) -> Sequence[Data]:
        """Those that `velocity_of` names."""
        every = {"source": (data,), "target": (self.domains.target,), "both": (data, self.domains.target)}
        return every[self.settings.velocity_of]

    def evaluate(self, network: Forward, split: str) -> Iterator[Counts]:
        """Counts of the target's images; on "validation" whatever `select_by` names."""
        by = self.settings.select_by
        if split == "validation" and by == "source":
            yield from self._source.evaluate(network, "validation")
        elif split == "validation" and by in LABEL_FREE:
            yield self._label_free(network)
        else:
            yield from self._of_target(network)
            if by in LABEL_FREE:
                yield self._label_free(network)

    def _of_target(self, network: Forward) -> Iterator[Counts]:
        for images, labels in self.domains.evaluated_target("test"):
            outputs = network(images)
            loss = cross_entropy(outputs, labels, "sum").double()
            yield {**count_hits(outputs, labels), "loss": loss}
        others: tuple[Literal["train", "velocity"], ...] = ("train", "velocity")
        for name in others:
            for images, labels in self.domains.evaluated_target(name):
                found = count_hits(network(images), labels)
                yield {f"other_{key}": value for key, value in found.items()}

    def tested(self) -> tuple[Data, Iterator[LabelledBatch]]:
        """The target and the images of its test split."""
        return self.domains.target, self.domains.evaluated_target("test")

    def _label_free(self, network: Forward) -> Counts:
        """The score without labels that the best epoch has the highest of, of all target images."""
        outputs = torch.cat([network(images).float() for images, _ in self.domains.target_batches(None)])
        by = self.settings.select_by
        return {by: torch.tensor(LABEL_FREE[by](outputs), dtype=torch.float64)}

    def scores(self, counts: Counts) -> dict[str, float]:
        """Top-1 in per cent and the loss on the test split, `top1_all` on all images, and `im` or `snd`."""
        found = classification_scores(counts) if "hits" in counts else {}
        if "other_images" in counts:
            hits, images = (int(counts[key]) + int(counts[f"other_{key}"]) for key in ("hits", "images"))
            found["top1_all"] = 100 * hits / images
        return {**found, **{by: float(counts[by]) for by in LABEL_FREE if by in counts}}
