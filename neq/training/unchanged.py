"""Trying something in training, and putting everything back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neq.backward import Plan
from neq.networks.parameter_slice import named_tensor
from neq.selection import PreviousValues, previous_values
from neq.training.context import Training


@contextmanager
def unchanged(run: Training, plan: Plan, before: PreviousValues | None = None) -> Iterator[None]:
    """Leaves network, task and random streams as they were before the block.

    Args:
        run: that trains in it.
        plan: by which it does.
        before: the values of all that the plan trains and of all buffers, where they are kept already.
    """
    before = before or previous_values(run.network, plan.parts)
    extra = run.task.extra_parameters()
    own = {name: parameter.detach().clone() for name, parameter in extra.items()}
    of_task = copy.deepcopy(run.task.state())
    try:
        with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for name, (part, values) in before.items():
                part.put(named_tensor(run.network, name), values)
            for name, values in own.items():
                extra[name].copy_(values)
        run.task.load_state(of_task)
