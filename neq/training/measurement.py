"""What is measured after an epoch's steps: velocities and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from neq.selection import VelocityState, similarity
from neq.training.context import Progress, Training
from neq.training.evaluation import evaluate
from neq.training.schedule import total_epochs
from neq.training.steps import Epoch, TrainingDiverged, task_name


@dataclass(frozen=True)
class Measured:
    """What is measured after an epoch's steps.

    Args:
        velocity: of the neurons; none under other policies.
        validation: scores; none without a validation split.
        test: scores, in the epochs that measure them.
        is_best: whether the epoch is the best one so far.
    """

    velocity: VelocityState | None
    validation: dict[str, float] | None
    test: dict[str, float] | None
    is_best: bool


def measure(run: Training, progress: Progress, epoch: Epoch) -> Measured:
    """Velocities, the scores (of averages, where the run has some), and whether the epoch is the best so far.

    Raises:
        TrainingDiverged: the validation loss is not finite.
        Stopped: the run was asked to stop; the epoch's steps are kept.
    """
    velocity = _velocity(run, progress, epoch)
    learned = [*run.network.state_dict().values(), *epoch.extra.values()]
    velocities = None if velocity is None else velocity.velocity
    run.processes.check_same(f"the weights after epoch {epoch.number}", [velocities, *learned])
    with nullcontext() if progress.averages is None else progress.averages.in_place(run.network):
        return _scored(run, progress, epoch, velocity)


def _scored(run: Training, progress: Progress, epoch: Epoch, velocity: VelocityState | None) -> Measured:
    """Scores of the network as it is, and whether it is the best so far."""
    config, is_last = run.config, epoch.number + 1 == total_epochs(run.config.run_config)
    validation = evaluate(run, "validation") if config.data_provider.use_validation else None
    if validation is not None and not math.isfinite(loss := validation.get("loss", 0.0)):
        raise TrainingDiverged(
            f"the validation loss is {loss} after epoch {epoch.number}; try a lower base_lr"
        )
    # Without validation nothing is chosen by a score: the last epoch is the one to keep.
    best_by, is_best = run.task.best_by, is_last
    if validation is not None:
        if best_by not in validation:
            raise ValueError(
                f"{task_name(run)} chooses the best epoch by {best_by!r}, but its scores are "
                f"{', '.join(validation)}; set best_by to one of them"
            )
        is_best = _is_better(validation, progress.best, best_by)
    is_due = (epoch.number + 1) % config.run_config.test_per_epochs == 0
    test = evaluate(run, "test") if is_best or is_last or is_due else None
    return Measured(velocity, validation, test, is_best)


def _is_better(validation: Mapping[str, float], best: Mapping[str, Any], best_by: str) -> bool:
    """Whether an epoch is the best so far: by its score, and of equal scores by the lower loss."""
    score, former = validation[best_by], best.get(f"val_{best_by}", -math.inf)
    return score > former or (score == former and validation.get("loss", 0) < best.get("val_loss", 0))


def _velocity(run: Training, progress: Progress, epoch: Epoch) -> VelocityState | None:
    """The velocities after an epoch; those before it where none are measured."""
    if epoch.state.before is None:
        return progress.velocity
    shown = torch.cat([data.velocity_images() for data in run.task.velocity_data(run.data)])
    images = shown.to(run.device, memory_format=torch.channels_last)
    phi = similarity(run.network, run.table, images, epoch.state.before)
    phi = run.processes.mean(phi, len(images))
    settings = run.config.NEq_config
    former = progress.velocity or VelocityState.start(len(run.table))
    return former.after_epoch(phi, settings.velocity_mu, settings.velocity_rule)
