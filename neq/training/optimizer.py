"""The optimizer over all that trains, and its state by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from neq.backward import NamedState, Plan
from neq.config import Config, RunSettings
from neq.networks.neurons import NORMS

# Adds hooks around an optimizer's steps, given the plan that they train and the run's configuration.
StepRule = Callable[[torch.optim.Optimizer, Plan, Config], None]
_step_rules: list[StepRule] = []


def register_step_rule(rule: StepRule) -> None:
    """Adds a rule that every optimizer of a run is passed to, once it is made."""
    if rule not in _step_rules:
        _step_rules.append(rule)


def make_optimizer(plan: Plan, config: Config, extra: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over all that trains; the loop sets its learning rate before every step.

    Args:
        plan: of the epoch.
        config: optimizer_name, momentum (SGD), weight_decay, and no_wd_keys: `norm` excludes the parameters
            of norm layers from weight decay, `bias` every bias; and what registered rules read.
        extra: parameters of the task; all of them decay.
    """
    optimizer = _optimizer(plan, config.run_config, extra)
    for rule in _step_rules:
        rule(optimizer, plan, config)
    return optimizer


def _optimizer(plan: Plan, settings: RunSettings, extra: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
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
        {"params": list(extra), "weight_decay": settings.weight_decay},
    ]
    # One empty group where nothing trains.
    groups = [group for group in groups if group["params"]] or groups[:1]
    if settings.optimizer_name == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum)
    if settings.optimizer_name == "adam":
        return torch.optim.Adam(groups)
    return torch.optim.AdamW(groups)


def task_state(optimizer: torch.optim.Optimizer, extra: Mapping[str, nn.Parameter]) -> NamedState:
    """The optimizer's state of the task's parameters, by name."""
    return {
        name: dict(optimizer.state[parameter])
        for name, parameter in extra.items()
        if parameter in optimizer.state
    }


def carry_task_state(
    former: NamedState, optimizer: torch.optim.Optimizer, extra: Mapping[str, nn.Parameter]
) -> None:
    """Copies state of the task's parameters into a new optimizer.

    Args:
        former: as `task_state` returned it, on any device.
        optimizer: new, over these parameters too.
        extra: by name.
    """
    for name, parameter in extra.items():
        if name in former:
            optimizer.state[parameter] = {
                key: value.to(parameter.device)
                if isinstance(value, torch.Tensor) and key != "step"
                else value
                for key, value in former[name].items()
            }
