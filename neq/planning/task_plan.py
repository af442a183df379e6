"""The plan of one task of a sequence, and what has been trained under it so far; kept as one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from neq.planning.device_plan import DevicePlan
from neq.planning.gain import Gain, Mean
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

PLANS = "plans"  # the folder of the tasks' plans, in that of a sequence
FORMAT = 1
# How a task ends, and a window beside that.
FINISHED, DEADLINE = "finished", "deadline"
OVER, EXCEEDED = "over", "exceeded"


@dataclass(frozen=True)
class Window:
    """A part of a task that trains under one row of its plan.

    Args:
        row: of the plan.
        explored: whether it was tried beside the one with the best gains.
        epoch: that it begins with.
        seconds: that it took so far.
        used: bytes that it added to its process at most.
        ended: "finished" or "deadline", with the task; "over"; "exceeded", the memory limit; empty: not yet.
        gain: that it made, where that is measured.
    """

    row: int
    explored: bool = False
    epoch: int = 0
    seconds: float = 0.0
    used: int = 0
    ended: str = ""
    gain: Gain | None = None


@dataclass(frozen=True)
class TaskPlan:
    """The plan of a task.

    Args:
        plan: its rows, and what exceeded the limit.
        spent: seconds of the deadline that are over.
        before: validation top-1 before training, 0 to 1; None: not measured.
        images: of the validation split, where that is measured.
        table: the name of the file where gains are kept for later sequences, where they are measured.
        means: of what plans gained, by what they learn: earlier tasks, probes, windows.
        windows: in order.
    """

    plan: DevicePlan
    spent: float = 0.0
    before: float | None = None
    images: int = 0
    table: str = ""
    means: Mapping[str, Mean] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()

    @property
    def ended(self) -> str:
        """How the task ended; empty: not yet."""
        last = self.windows[-1].ended if self.windows else ""
        return last if last in (FINISHED, DEADLINE) else ""

    def with_last(self, **changes: Any) -> TaskPlan:
        """The same with changes of the last window."""
        return replace(self, windows=(*self.windows[:-1], replace(self.windows[-1], **changes)))

    def ran(self) -> list[dict[str, Any]]:
        """The windows as plain values, with what their rows learn and cost, for the sequence's record."""
        rows = self.plan.rows
        return [
            {
                **asdict(window),
                "learns": rows[window.row].learning,
                "peak": rows[window.row].peak,
                "settings": dict(rows[window.row].settings),
            }
            for window in self.windows
        ]

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {name: value for name, value in asdict(self).items() if name != "plan"}
        content = {"task_format": FORMAT, **self.plan.content(), "task": own}
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> TaskPlan:
        """Reads what `write` wrote.

        Raises:
            UserError: the file cannot be read, or is of another version.
        """
        content = read_object(path)
        try:
            if content["task_format"] != FORMAT:
                raise ValueError
            plan, own = DevicePlan.of_content(content), content["task"]
            windows = [Window(**{**each, "gain": _gain(each["gain"])}) for each in own["windows"]]
            if not all(0 <= window.row < len(plan.rows) for window in windows):
                raise ValueError
            means = {str(name): Mean(**mean) for name, mean in own["means"].items()}
            before = None if own["before"] is None else float(own["before"])
            measured = before, int(own["images"]), str(own["table"]), means
            return cls(plan, float(own["spent"]), *measured, tuple(windows))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                f"{path} is damaged, or of another version; put it back, or give another --out"
            ) from None


def latest_memory(out: Path) -> str:
    """The memory setting of the latest task's last window; empty: it is not known, or the task has ended.

    Args:
        out: folder of a sequence.
    """
    path = max((out / PLANS).glob("*.json"), key=_number, default=None)
    task = None if path is None else TaskPlan.read(path)
    if task is None or task.ended:
        return ""
    row = task.plan.number if not task.windows or task.windows[-1].ended else task.windows[-1].row
    return str(task.plan.rows[row].settings["memory"])


def _number(path: Path) -> int:
    """The number that the name of a task's plan begins with: 100 comes behind 99."""
    return int(path.name.partition("_")[0])


def _gain(values: Mapping[str, Any] | None) -> Gain | None:
    return None if values is None else Gain(**values)
