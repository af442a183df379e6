"""Carrying optimizer state from one selection to the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neq.backward.plan import Plan
from neq.backward.trainable import values_of
from neq.networks.parameter_slice import ParameterSlice, named_tensor

# Parameter's name -> {"index": channels that trained or None for all, "axis": of the parameter, "state": the
# optimizer's}.
NamedState = dict[str, dict[str, Any]]


def optimizer_state(optimizer: torch.optim.Optimizer, plan: Plan) -> NamedState:
    """The state of an optimizer over a plan's parameters, by name and channel instead of by tensor.

    Returns:
        Plain values and tensors, which torch.save can write and torch.load(weights_only=True) read.
    """
    return {
        name: {**vars(plan.parts[name]), "state": dict(optimizer.state[parameter])}
        for name, parameter in plan.named_parameters()
        if parameter in optimizer.state
    }


def carry_optimizer_state(former: NamedState, optimizer: torch.optim.Optimizer, plan: Plan) -> None:
    """Moves the state of the channels that stay selected to a new optimizer over a new plan.

    Channels that enter start from zero, as under a fresh optimizer. Optimizers that count steps per tensor
    (Adam, AdamW) would let a channel that enters late move up to 3 times too far; under those, a parameter of
    which other channels train than before starts afresh as a whole. So does one whose state is not a value
    for each weight. A history over all parameters (LBFGS) is not carried.

    Args:
        former: what `optimizer_state` returned for the plan before, on any device.
        optimizer: fresh, over the new plan's parameters.
        plan: the new plan.
    """
    for name, parameter in plan.named_parameters():
        if name not in former:
            continue
        before = ParameterSlice(former[name]["index"], former[name]["axis"])
        now, state = plan.parts[name], former[name]["state"]
        if any(isinstance(value, list) for value in state.values()):
            continue  # LBFGS keeps the history of all parameters with the first one
        values = values_of(plan.network, name, before)
        by_weight = all(v.numel() == values for v in state.values() if isinstance(v, Tensor))
        if not before.same(now) and ("step" in state or not by_weight):
            continue
        size = named_tensor(plan.network, name).shape[before.axis]
        optimizer.state[parameter] = {
            key: _moved(value, before, now, size).to(parameter.device)
            if isinstance(value, Tensor) and key != "step"
            else value
            for key, value in state.items()
        }


def _moved(value: Tensor, before: ParameterSlice, now: ParameterSlice, size: int) -> Tensor:
    """State of the slice `now`, from that of the slice `before`; zero where there was none."""
    if before.same(now):
        return value
    whole = before.spread(value, size)
    return whole if now.is_whole else now.take(whole)
