"""Cross entropy on the source plus the loss of a method that compares the domains, or reads the target.

    L = CE(o_s, y_s) + w R

Under a `sharpness_radius` rho a step takes the gradient of L at w + rho g / |g|, g = dCE(o_s, y_s)/dw: a pass
of the source finds that point, a pass of both domains follows there. The method's own parameters are not
displaced, and batch norms that train count the source's images in both passes.

Source: Rangwani et al., "A Closer Look at Smoothness in Domain Adversarial Training" (SDAT), ICML 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from neq.adaptation.domain_norms import SourceStatistics
from neq.adaptation.domains import Domains
from neq.adaptation.method import Both, Method
from neq.adaptation.statistics import adapt_statistics
from neq.adaptation.task import Adaptation
from neq.config import Config, section_of
from neq.networks.heads import HeadInputs, head_name
from neq.tasks import Counts, Forward, StepOutput, TaskInputs
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


@dataclass(frozen=True)
class OfSource:
    """The source's part of a pair: its images [B, 3, S, S] and labels [B]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class OfTarget:
    """The target's part of a pair: its images [B, 3, S, S]."""

    images: Tensor


class Aligned(Adaptation):
    """Adaptation by a method of METHODS, whose parameters train beside the network's.

    A loss whose terms read one domain each allows a call for each domain with a backward pass of its own,
    which keeps half as much: a `micro_batch_size` of the images of one domain.
    """

    has_sharpness = True

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
        self.fixed_parts = 0 if self.method.compares else 2
        self._check_parts(inputs.config)
        self.copies = int(self.settings.sharpness_radius is not None)
        self.extra_saved_bytes = self._kept_bytes(len(domains.source.classes))
        self._of_source = None
        if self.settings.domain_norms == "domain":
            _check_domain_norms(inputs.config, self.share)
            self._of_source = SourceStatistics(inputs.network)

    @classmethod
    def passes(cls, config: Config) -> tuple[int, ...]:
        """One pass with the images of both domains, or one for each domain; of micro-batches, one each.

        The pass of the source that a sharpness radius adds is counted as if it was kept with the others.
        """
        settings = section_of(config, AdaptationSettings)
        before = () if settings.sharpness_radius is None else (1,)
        is_one = settings.domain_norms == "joint" or config.run_config.micro_batch_size is not None
        return (*before, *((2,) if is_one else (1, 1)))

    def begin(self, epoch: int, start: int) -> None:
        """At the start of the run, statistics of each domain where it has its own, or of the target."""
        if (epoch, start) == (0, 0) and self._of_source and self.settings.adapt_statistics:
            with self._of_source.used():
                adapt_statistics(self.network, self.domains.source_images())
        super().begin(epoch, start)

    def batches(self, epoch: int, start: int) -> Iterator[Pair]:
        """The target's batches, each with the next batch of the source."""
        self.begin(epoch, start)
        source = self.domains.source_batches(epoch * self.steps_per_epoch + start)
        target = self.domains.target_batches(epoch, start)
        for number, (unlabelled, _) in enumerate(target, start):
            images, labels = next(source)
            yield Pair(torch.cat([images, unlabelled]), labels, self.progress(epoch, number))

    def micro_batches(self, batch: Pair, parts: int) -> Iterator[tuple[Any, float]]:
        """The pair, or its two domains, whose losses add up."""
        if parts == 1:
            yield batch, 1.0
        else:
            source, target = batch.images.chunk(2)
            yield OfSource(source, batch.labels), 1.0
            yield OfTarget(target), 1.0

    def step(self, forward: Forward, batch: Pair | OfSource | OfTarget) -> StepOutput:
        """Counts images and hits of the source."""
        if isinstance(batch, OfSource):
            with self._source_norms():
                return self._source.step(forward, (batch.images, batch.labels))
        if isinstance(batch, OfTarget):
            outputs = forward(batch.images)
            outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
            return StepOutput(self._weight * self.method.of_target(outputs, forward.mean), {})
        if (radius := self.settings.sharpness_radius) is not None:
            with self._source_norms():
                outputs = forward(batch.images[: len(batch.labels)])
            forward.displace(cross_entropy(outputs, batch.labels), radius)
        with HeadInputs(self._head) as kept:
            if self.settings.domain_norms == "joint":
                outputs = forward(batch.images)
            else:
                source, target = batch.images.chunk(2)
                with self._source_norms():
                    outputs = forward(source)
                outputs = torch.cat([outputs, forward(target)])
        of_source = outputs[: len(batch.labels)]
        loss = cross_entropy(of_source, batch.labels)
        if self._weight:
            outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
            both = Both(kept.features(), outputs, batch.progress, self.share, forward.mean)
            loss = loss + self._weight * self.method(both)
        return StepOutput(loss, count_hits(of_source.detach(), batch.labels))

    def evaluate(self, network: Forward, split: str) -> Iterator[Counts]:
        """As of all methods; the source's validation split on the statistics of the source."""
        is_of_source = split == "validation" and self.settings.select_by == "source"
        with self._source_norms() if is_of_source else nullcontext():
            yield from super().evaluate(network, split)

    def state(self) -> dict[str, Any]:
        """The running statistics of the source, where it has its own."""
        return {} if self._of_source is None else self._of_source.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned.

        Raises:
            ValueError: it is not the state of this task.
        """
        if self._of_source is None:
            super().load_state(state)
        else:
            self._of_source.load_state(state)

    def _check_parts(self, config: Config) -> None:
        """Checks that a `micro_batch_size` is a domain's part of the batch.

        Raises:
            UserError: it is not, or the domains cannot be passed alone.
        """
        images, own = config.run_config.micro_batch_size, round(self.domains.batch_size * self.share)
        if images is None:
            return
        needs = None
        if self.settings.sharpness_radius is not None:
            needs = "sharpness_radius, for which a step passes the source twice; leave one of them out"
        elif self.method.compares:
            needs = f"objective {config.objective!r}, whose loss compares both domains; leave it out"
        elif self.settings.domain_norms == "joint" and config.NEq_config.norm_mode != "frozen":
            needs = "domain_norms 'joint', which sees both domains in one call; give domain_norms separate"
        elif images != own:
            needs = f"{own} images of each domain in a process; give {own}: one domain after the other"
        if needs:
            raise UserError(f"micro_batch_size {images} is not allowed with {needs}")

    def _source_norms(self) -> AbstractContextManager[None]:
        return nullcontext() if self._of_source is None else self._of_source.used()

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


def _check_domain_norms(config: Config, share: float) -> None:
    """Raises:
    UserError: settings under which two sets of statistics are one, or are not those of a step.
    """
    run, is_frozen = config.run_config, config.NEq_config.norm_mode == "frozen"
    found = None
    if is_frozen and not section_of(config, AdaptationSettings).adapt_statistics:
        found = "norm_mode 'frozen' without adapt_statistics, as both domains keep the network's statistics; "
        found += "give adapt_statistics true"
    elif is_frozen and (run.checkpoint_segments > 1 or run.checkpoint_cuts):
        found = "segments under norm_mode 'frozen', which would run again on statistics of the other domain; "
        found += "leave checkpoint_segments out"
    elif share < 1:
        found = "several processes; start one, or give domain_norms joint"
    if found:
        raise UserError(f"domain_norms 'domain' is not allowed with {found}")


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
