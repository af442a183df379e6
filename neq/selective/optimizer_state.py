"""Carrying optimizer state from one selection to the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neq.selective.plan import Plan

# Parameter's name -> (its chosen rows or none for all, its optimizer state).
NamedState = dict[str, dict[str, Any]]


def optimizer_state(optimizer: torch.optim.Optimizer, plan: Plan) -> NamedState:
    """The state of an optimizer over a plan's parameters, by name and row instead of by tensor.

    Returns:
        name -> {"channels": rows of the network's parameter or None for all, "state": the optimizer's own}.
    """
    return {
        name: {"channels": plan.channels(name), "state": dict(optimizer.state[parameter])}
        for name, parameter in plan.named_parameters()
        if parameter in optimizer.state
    }


def carry_optimizer_state(former: NamedState, optimizer: torch.optim.Optimizer, plan: Plan) -> None:
    """Gives a new optimizer over a new plan the state of the rows that stay.

    Rows that enter start from zero, as under a fresh optimizer. Optimizers that count steps per tensor
    (Adam, AdamW) would let a row that enters late move up to 3 times too far; under those, a layer whose set
    of rows changes starts afresh as a whole.

    Args:
        former: what `optimizer_state` gave for the plan before.
        optimizer: fresh, over the new plan's parameters.
        plan: the new plan.
    """
    for name, parameter in plan.named_parameters():
        if name not in former:
            continue
        before, state = former[name]["channels"], former[name]["state"]
        now = plan.channels(name)
        if _same(before, now):
            optimizer.state[parameter] = dict(state)
        elif "step" not in state:
            rows = len(plan.network.get_parameter(name))
            optimizer.state[parameter] = {
                key: _moved(value, before, now, rows) if isinstance(value, Tensor) else value
                for key, value in state.items()
            }


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(a.cpu(), b.cpu())


def _moved(value: Tensor, before: Tensor | None, now: Tensor | None, rows: int) -> Tensor:
    """Rows `now` of a per-row state that held the rows `before`; zero where it held none."""
    whole = value
    if before is not None:
        whole = value.new_zeros(rows, *value.shape[1:]).index_copy_(0, before.to(value.device), value)
    return whole if now is None else whole.index_select(0, now.to(value.device))
