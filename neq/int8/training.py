"""How a run's optimizer steps over int8 layers."""

from __future__ import annotations

import torch

from neq.backward import Plan
from neq.config import Config, section_of
from neq.int8.qas import attach
from neq.training.optimizer import register_step_rule
from neq.wings.int8 import Int8Settings


def step_rule(optimizer: torch.optim.Optimizer, plan: Plan, config: Config) -> None:
    """Quantization-aware scaling where the configuration asks for it, and codes in their range."""
    attach(optimizer, plan, section_of(config, Int8Settings).qas)


register_step_rule(step_rule)
