"""A higher learning rate for what starts at random: the head, its bottleneck, the parameters of the method.

Source: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17, 2016, section 5.2.2 (ten
times that of pretrained layers).
"""

from __future__ import annotations

from typing import Any

import torch

from neq.backward import Plan
from neq.config import Config, section_of
from neq.training.optimizer import register_step_rule
from neq.wings.adaptation import PREFIX, AdaptationSettings


def step_rule(optimizer: torch.optim.Optimizer, plan: Plan, config: Config) -> None:
    """Groups of their own, whose learning rate is multiplied before every step."""
    settings = section_of(config, AdaptationSettings)
    if settings.head_rate == 1 or not config.objective.startswith(PREFIX):
        return
    place = plan.table.head
    if settings.bottleneck is not None:
        place = place.rpartition(".")[0]
    ours = dict(plan.named_parameters())
    slow = {id(each) for name, each in ours.items() if not name.startswith(f"{place}.")}
    fast: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        rest = [each for each in group["params"] if id(each) not in slow]
        group["params"] = [each for each in group["params"] if id(each) in slow]
        if rest:
            fast.append({**group, "params": rest})
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]] + fast

    def multiply(*_: object) -> None:
        for group in fast:
            group["lr"] *= settings.head_rate

    optimizer.register_step_pre_hook(multiply)


register_step_rule(step_rule)
