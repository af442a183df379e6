"""What each task of a sequence may need, as the sequence's file or the command line has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neq.config.amounts import bytes_of, seconds_of
from neq.planning.rules import Limits
from neq.utils.errors import UserError, shown, unknown_name

_KEYS = ("memory", "deadline", "probe")


@dataclass(frozen=True)
class TaskLimits:
    """The limits that each task is planned for.

    Args:
        limits: of one task.
        probe: whether the plan is chosen anew in each window of the deadline, by what plans gain.

    Raises:
        UserError: it is, and there is no deadline.
    """

    limits: Limits
    probe: bool = False

    def __post_init__(self) -> None:
        if self.probe and self.limits.deadline == math.inf:
            raise UserError("probe takes shares of the deadline; give a deadline, as 10min")

    @property
    def identity(self) -> dict[str, Any]:
        """Plain values that tell tasks of other limits apart, by key."""
        deadline = None if self.limits.deadline == math.inf else self.limits.deadline
        return {"plan_memory": self.limits.memory, "plan_deadline": deadline, "plan_probe": self.probe}


def read_task_limits(given: object) -> TaskLimits | None:
    """The limits in a file: {memory: 256MiB, deadline: 10min, probe: true}; none stays none.

    Raises:
        UserError: they are something else.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping) or "memory" not in given:
        raise UserError(
            f"plan {shown(given)} is not allowed: {{memory: 256MiB, deadline: 10min}} is expected"
        )
    for key in given:
        if key not in _KEYS:
            raise unknown_name("key", f"plan.{key}", [f"plan.{each}" for each in _KEYS])
    probe = given.get("probe", False)
    if not isinstance(probe, bool):
        raise UserError(f"plan.probe {shown(probe)} is not allowed: true or false is expected")
    try:
        deadline = seconds_of(given["deadline"]) if "deadline" in given else math.inf
        memory = bytes_of(given["memory"])
    except ValueError as error:
        raise UserError(f"plan: {error}") from None
    return TaskLimits(Limits(memory, deadline), probe)
