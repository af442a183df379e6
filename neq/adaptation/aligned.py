"""Cross entropy on the source plus the loss of a method that compares the domains, or reads the target.

L = CE(o_s, y_s) + w R
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn

from neq.adaptation.domains import Domains
from neq.adaptation.method import Both, Method
from neq.adaptation.task import Adaptation, HeadInputs
from neq.config import Config, section_of
from neq.networks.heads import head_name
from neq.tasks import Forward, StepOutput, TaskInputs
from neq.tasks.classification import count_hits, cross_entropy
from neq.training.profiling import SavedBytes
from neq.utils.errors import UserError
from neq.utils.seeds import seed_for
from neq.wings.adaptation import METHODS, PREFIX, AdaptationSettings


@dataclass(frozen=True)
class Pair:
    """A batch of each domain.

    Args:
        images: [2B, 3, S, S], those of the source first.
        labels: of the source, int64 [B].
        progress: of the run before the step, 0 .. 1.
    """

    images: Tensor
    labels: Tensor
    progress: float


class Aligned(Adaptation):
    """Adaptation by a method of METHODS, whose parameters train beside the network's."""

    def __init__(self, inputs: TaskInputs, domains: Domains) -> None:
        super().__init__(inputs, domains)
        self._head = inputs.network.get_submodule(head_name(inputs.network))
        self.method = new_method(inputs, self._head, len(domains.source.classes))
        weight = self.settings.loss_weight
        self._weight = self.method.weight if weight is None else weight
        if self.share < 1 and not self.method.has_shares:
            raise UserError(
                f"objective {inputs.config.objective!r} compares every pair of images in a batch, which one "
                "process needs whole; start one process, or take adapt_mcc, adapt_coral or adapt_dann"
            )
        self.extra_saved_bytes = self._kept_bytes(len(domains.source.classes))

    @classmethod
    def passes(cls, config: Config) -> tuple[int, ...]:
        """One pass with the images of both domains, or one for each domain."""
        return (1, 1) if section_of(config, AdaptationSettings).domain_norms == "separate" else (2,)

    def batches(self, epoch: int, start: int) -> Iterator[Pair]:
        """The target's batches, each with the next batch of the source."""
        self.begin(epoch, start)
        source = self.domains.source_batches(epoch * self.steps_per_epoch + start)
        target = self.domains.target_batches(epoch, start)
        for number, (unlabelled, _) in enumerate(target, start):
            images, labels = next(source)
            yield Pair(torch.cat([images, unlabelled]), labels, self.progress(epoch, number))

    def step(self, forward: Forward, batch: Pair) -> StepOutput:
        """Counts images and hits of the source."""
        with HeadInputs(self._head) as kept:
            if self.settings.domain_norms == "joint":
                outputs = forward(batch.images)
            else:
                outputs = torch.cat([forward(images) for images in batch.images.chunk(2)])
        of_source = outputs[: len(batch.labels)]
        loss = cross_entropy(of_source, batch.labels)
        if self._weight:
            outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
            both = Both(kept.features(), outputs, batch.progress, self.share, forward.mean)
            loss = loss + self._weight * self.method(both)
        return StepOutput(loss, count_hits(of_source.detach(), batch.labels))

    def extra_parameters(self) -> Mapping[str, nn.Parameter]:
        """Those of the method: discriminators, further heads."""
        return dict(self.method.named_parameters())

    def _kept_bytes(self, classes: int) -> int:
        """What the method keeps for backward of a step of all processes together, its inputs included."""
        if not self.extra_parameters():
            return 0
        parameter = next(self.method.parameters())
        images, features = 2 * self.domains.batch_size, features_of(self._head)
        saved = SavedBytes(self.method.parameters())
        given = [parameter.new_zeros(images, size, requires_grad=True) for size in (features, classes)]
        with saved.counting():
            self.method(Both(given[0], given[1]))
        return saved.total


def features_of(head: nn.Module) -> int:
    """F, the inputs of a classifier head.

    Raises:
        UserError: a head of another kind than Linear or 1x1 convolution.
    """
    for name in ("in_features", "in_channels"):
        if isinstance(found := getattr(head, name, None), int):
            return found
    raise UserError(f"adaptation needs a head that is Linear or Conv2d, here it is {type(head).__name__}")


def new_method(inputs: TaskInputs, head: nn.Module, classes: int) -> Method:
    """The method of the run's objective, its parameters drawn by the run's seed."""
    place, _ = METHODS[inputs.config.objective.removeprefix(PREFIX)]
    module, _, name = place.partition(":")
    kind: type[Method] = getattr(import_module(module), name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(inputs.config.manual_seed, "adaptation"))
        method = kind(features_of(head), classes)
    dtype = next(head.parameters()).dtype
    return method.to(inputs.device, torch.promote_types(dtype, torch.float32))
