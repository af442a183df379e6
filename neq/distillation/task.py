"""Any task, learned from a teacher beside:

    L = (1 - w) L_task + w L_logits + v L_features

on all images that a step passes through the network: mixed ones as they are, of an adaptation those of both
domains. See `neq.distillation.loss`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neq.config import Config, section_of
from neq.data import Data
from neq.distillation.loss import features_loss, logits_loss
from neq.distillation.teacher import Teacher, open_teacher
from neq.networks.heads import HeadInputs, head_name
from neq.tasks import Counts, Forward, StepOutput, Task, TaskInputs
from neq.training.profiling import SavedBytes
from neq.utils.errors import UserError
from neq.utils.eval_mode import eval_mode
from neq.utils.seeds import seed_for
from neq.wings.distillation import DistillationSettings

_OWN = "distillation."


def distilled(task: Task[Any], inputs: TaskInputs) -> Task[Any]:
    """The task of a run that has a teacher.

    Raises:
        UserError: a teacher that does not fit, or a budget in time, which does not count it.
    """
    config = inputs.config
    if config.NEq_config.budget_unit == "time":
        raise UserError(
            "a budget in time does not count the teacher's forward pass; give one in another unit"
        )
    return Distillation(task, open_teacher(inputs), inputs)


class Distillation(Task[Any]):
    """A task with a teacher.

    Args:
        task: what is learned beside.
        teacher: of the same classes.
        inputs: of the run.
    """

    def __init__(self, task: Task[Any], teacher: Teacher, inputs: TaskInputs) -> None:
        self.task, self.teacher, self._network = task, teacher, inputs.network
        self._head = inputs.network.get_submodule(head_name(inputs.network))
        self._settings = section_of(inputs.config, DistillationSettings)
        self.steps_per_epoch, self.share, self.best_by = task.steps_per_epoch, task.share, task.best_by
        self.forwards, self.fixed_parts = task.forwards, task.fixed_parts
        self.has_micro_batches = task.has_micro_batches
        self._projection: nn.Module = nn.Identity()
        data, micro = inputs.config.data_provider, inputs.config.run_config.micro_batch_size
        assert data.image_size is not None
        images, passes = math.ceil(data.base_batch_size * task.share), task.passes(inputs.config)
        own = max(passes) * min(images, micro or images)
        self.held_bytes = task.held_bytes + teacher.held_bytes(own, data.image_size)
        self.extra_saved_bytes, self.copies = task.extra_saved_bytes, task.copies
        if self._settings.feature_weight:
            mine, theirs = self._widths(inputs, data.image_size)
            self._projection = _projection(mine, theirs, inputs)
            self.extra_saved_bytes += self._kept_bytes(sum(passes) * data.base_batch_size, mine, theirs)

    def passes(self, config: Config) -> tuple[int, ...]:  # type: ignore[override]
        """As of the task."""
        return self.task.passes(config)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """As of the task."""
        return self.task.batches(epoch, start)

    def micro_batches(self, batch: Any, parts: int) -> Iterator[tuple[Any, float]]:
        """As of the task."""
        return self.task.micro_batches(batch, parts)

    def step(self, forward: Forward, batch: Any) -> StepOutput:
        """The task's loss and counts, the teacher's losses added."""
        settings = self._settings
        with HeadInputs(self._head) as kept:
            seen = _Seen(forward, self.teacher, kept.found)
            output = self.task.step(seen, batch)
        student, teacher, features = (torch.cat(each) for each in (seen.outputs, seen.logits, seen.features))
        weight = settings.distill_weight
        loss = (1 - weight) * output.loss
        loss = loss + weight * logits_loss(student, teacher, settings.temperature)
        if settings.feature_weight:
            own = torch.cat(kept.found).to(self._dtype(features))
            loss = loss + settings.feature_weight * features_loss(self._projection(own), features)
        return StepOutput(loss, output.counts)

    def evaluate(self, network: Forward, split: str) -> Iterator[Counts]:
        """As of the task."""
        return self.task.evaluate(network, split)

    def tested(self) -> tuple[Data, Iterator[tuple[Tensor, ...]]] | None:
        """As of the task."""
        return self.task.tested()

    def on_maps(self, data: Data) -> None:
        """None: the teacher needs the images."""

    def velocity_data(self, data: Data) -> Sequence[Data]:
        """As of the task."""
        return self.task.velocity_data(data)

    def scores(self, counts: Counts) -> dict[str, float]:
        """As of the task."""
        return self.task.scores(counts)

    def extra_parameters(self) -> Mapping[str, nn.Parameter]:
        """The task's, and the projection of features."""
        own = {_OWN + name: parameter for name, parameter in self._projection.named_parameters()}
        return {**self.task.extra_parameters(), **own}

    def state(self) -> dict[str, Any]:
        """As of the task: the teacher has none."""
        return self.task.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """As of the task."""
        self.task.load_state(state)

    def _dtype(self, features: Tensor) -> torch.dtype:
        projected = next(self._projection.parameters(), None)
        return features.dtype if projected is None else projected.dtype

    def _widths(self, inputs: TaskInputs, size: int) -> tuple[int, int]:
        """Features of the network and of the teacher."""
        example = next(inputs.network.parameters())
        images = torch.zeros(2, 3, size, size, dtype=example.dtype, device=inputs.device)
        with HeadInputs(self._head) as kept, eval_mode(inputs.network), torch.no_grad():
            inputs.network(images)
        return kept.found[0].shape[1], self.teacher(images)[1].shape[1]

    def _kept_bytes(self, images: int, mine: int, theirs: int) -> int:
        """What the features' loss keeps for backward, of a step of all processes together."""
        example = next(self._network.parameters())
        saved = SavedBytes(self._projection.parameters())
        student, teacher = (example.new_zeros(images, width) for width in (mine, theirs))
        with saved.counting():
            features_loss(self._projection(student.to(self._dtype(teacher)).requires_grad_()), teacher)
        return saved.total


class _Seen:
    """A forward whose images the teacher sees too, before the network does: it keeps nothing meanwhile.

    Args:
        forward: of the step.
        teacher: of the task.
        inputs: of the network's head, one of each call.
    """

    def __init__(self, forward: Forward, teacher: Teacher, inputs: list[Tensor]) -> None:
        self._forward, self._teacher, self._inputs = forward, teacher, inputs
        self.outputs: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.features: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        logits, features = self._teacher(x)
        self.logits.append(logits)
        self.features.append(features)
        self.outputs.append(self._forward(x))
        return self.outputs[-1]

    def mean(self, value: Tensor) -> Tensor:
        return self._forward.mean(value)

    def displace(self, loss: Tensor, radius: float) -> None:
        """What was seen before a displacement is no longer part of the step's loss."""
        for seen in (self.outputs, self.logits, self.features, self._inputs):
            seen.clear()
        self._forward.displace(loss, radius)


def _projection(mine: int, theirs: int, inputs: TaskInputs) -> nn.Module:
    """P, drawn by the run's seed; nothing where both widths are the same."""
    if mine == theirs:
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(inputs.config.manual_seed, "distillation"))
        drawn = nn.Linear(mine, theirs, bias=False)
    dtype = torch.promote_types(next(inputs.network.parameters()).dtype, torch.float32)
    return drawn.to(inputs.device, dtype)
