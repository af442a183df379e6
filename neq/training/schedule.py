"""The learning rate of every step: linear warm-up, then the schedule."""

from __future__ import annotations

import math

from neq.config import RunSettings


def total_epochs(settings: RunSettings) -> int:
    """Epochs of a run: warm-up comes on top of n_epochs."""
    return settings.warmup_epochs + settings.n_epochs


def learning_rate(
    settings: RunSettings, base_lr: float, step: int, steps_per_epoch: int, first_epochs: int = 0
) -> float:
    """The learning rate of a step.

    Args:
        settings: of the run.
        base_lr: the rate after warm-up: that of the settings, or the one that a search has found.
        step: of the whole run, from 0.
        steps_per_epoch: 1 or more.
        first_epochs: how many have a schedule of their own, without warm-up; the others have another.
    """
    if step < first_epochs * steps_per_epoch:
        settings = settings.model_copy(update={"n_epochs": first_epochs, "warmup_epochs": 0})
    elif first_epochs:
        settings = settings.model_copy(update={"n_epochs": settings.n_epochs - first_epochs})
        step -= first_epochs * steps_per_epoch
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.warmup_lr + (base_lr - settings.warmup_lr) * step / warmup
    step -= warmup
    if settings.lr_schedule_name == "cosine":
        progress = step / (settings.n_epochs * steps_per_epoch)
        return settings.final_lr + (base_lr - settings.final_lr) * (1 + math.cos(math.pi * progress)) / 2
    epoch = step // steps_per_epoch
    if isinstance(settings.lr_step_size, int):
        drops = epoch // settings.lr_step_size
    else:
        drops = sum(milestone <= epoch for milestone in settings.lr_step_size)
    return base_lr * settings.lr_step_gamma**drops
