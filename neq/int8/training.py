"""How a run's optimizer steps over int8 layers, and what their training costs by the published model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from neq.backward import Plan
from neq.budget import StepSpec
from neq.config import Config, section_of
from neq.experiment.cost_report import register_cost_rows
from neq.int8.memory_model import model_kilobytes
from neq.int8.network import Int8Network
from neq.int8.qas import attach
from neq.networks import ParameterSlice
from neq.training.optimizer import register_step_rule
from neq.wings.int8 import Int8Settings


def step_rule(optimizer: torch.optim.Optimizer, plan: Plan, config: Config) -> None:
    """Quantization-aware scaling where the configuration asks for it, and codes in their range."""
    attach(optimizer, plan, section_of(config, Int8Settings).qas)


def cost_rows(network: nn.Module, parts: Mapping[str, ParameterSlice], spec: StepSpec) -> dict[str, int]:
    """The published memory model of int8 networks, in bytes for one image."""
    if not isinstance(network, Int8Network):
        return {}
    kilobytes = model_kilobytes(network, parts, spec.image_shape)
    return {"bytes by the published model": round(1024 * kilobytes)}


register_step_rule(step_rule)
register_cost_rows(cost_rows)
