"""The optimizer over a plan's parameters."""

from __future__ import annotations

from typing import Any

import torch

from neq.backward import Plan
from neq.config import RunSettings
from neq.networks.neurons import NORMS


def make_optimizer(plan: Plan, settings: RunSettings) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over all that a plan trains.

    Args:
        plan: of the epoch.
        settings: optimizer_name, momentum (SGD), weight_decay, and no_wd_keys: `norm` takes every parameter
            of a norm layer out of weight decay, `bias` every bias.
    """
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for name, parameter in plan.named_parameters():
        module_name, _, key = name.rpartition(".")
        is_norm = isinstance(plan.network.get_submodule(module_name), NORMS)
        exempt = ("norm" in settings.no_wd_keys and is_norm) or (
            "bias" in settings.no_wd_keys and key == "bias"
        )
        (free if exempt else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer_name == "sgd":
        return torch.optim.SGD(groups, lr=settings.base_lr, momentum=settings.momentum)
    if settings.optimizer_name == "adam":
        return torch.optim.Adam(groups, lr=settings.base_lr)
    return torch.optim.AdamW(groups, lr=settings.base_lr)
