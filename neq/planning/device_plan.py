"""The plan of a run for a device: all configurations as judged, and what exceeded the limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from neq.planning.rules import Limits
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

FORMAT = 1
# The share of the peak of a plan that exceeded the limit that the next one must stay below.
_NEXT_BELOW = 0.9


@dataclass(frozen=True)
class PlannedRow:
    """One configuration of a plan.

    Args:
        settings: of the run, by key.
        share: of the selection (`Learning.share`).
        peak: predicted bytes; None: not estimated.
        seconds: predicted of the whole run; None: not estimated.
        reason: why it is struck, the rule first; empty: it is not.
        by: the number of the row that makes the rule do so, under R3 and R4.
    """

    settings: Mapping[str, Any]
    share: float | None
    peak: int | None
    seconds: float | None
    reason: str = ""
    by: int | None = None

    @property
    def rule(self) -> str:
        """The rule that strikes it."""
        return self.reason.partition(":")[0]


@dataclass(frozen=True)
class Hit:
    """A configuration whose run exceeded the limit.

    Args:
        row: its number.
        used: bytes that it took at most.
        predicted: bytes.
    """

    row: int
    used: int
    predicted: int


@dataclass(frozen=True)
class DevicePlan:
    """The plan of a run.

    Args:
        run: the identity of the run without the plan's settings.
        limits: that it is made for.
        device: what was measured: device, threads and versions.
        rows: all configurations.
        order: numbers of those that survive, the preferred first.
        given: the settings that it could have chosen, and that were given.
        hits: what exceeded the limit so far.
    """

    run: Mapping[str, Any]
    limits: Limits
    device: str
    rows: tuple[PlannedRow, ...]
    order: tuple[int, ...]
    given: tuple[str, ...] = ()
    hits: tuple[Hit, ...] = ()

    @property
    def number(self) -> int:
        """The number of the row that runs.

        Raises:
            UserError: none is left.
        """
        below = min((_NEXT_BELOW * hit.predicted for hit in self.hits), default=None)
        for number in self.order:
            peak = self.rows[number].peak
            assert peak is not None
            if below is None or peak < below:
                return number
        raise UserError("every plan has exceeded the memory limit or needs as much; raise --memory")

    @property
    def chosen(self) -> PlannedRow:
        """The row that runs."""
        return self.rows[self.number]

    def exceeded(self, used: int) -> DevicePlan:
        """The plan after the chosen row exceeded the limit.

        Args:
            used: bytes that it took.
        """
        predicted = self.chosen.peak
        assert predicted is not None
        return replace(self, hits=(*self.hits, Hit(self.number, used, predicted)))

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        limits = {"memory": self.limits.memory, "deadline": _number(self.limits.deadline)}
        content = {**asdict(self), "format": FORMAT, "limits": limits}
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> DevicePlan:
        """Reads what `write` wrote.

        Raises:
            UserError: the file cannot be read, or is no plan of this version.
        """
        content = read_object(path)
        try:
            if content["format"] != FORMAT:
                raise ValueError
            deadline = content["limits"]["deadline"]
            limits = Limits(int(content["limits"]["memory"]), float("inf" if deadline is None else deadline))
            rows = tuple(PlannedRow(**row) for row in content["rows"])
            order = tuple(map(int, content["order"]))
            hits = tuple(Hit(**hit) for hit in content["hits"])
            given = tuple(map(str, content["given"]))
            found = cls(content["run"], limits, str(content["device"]), rows, order, given, hits)
            if not order or not all(0 <= number < len(rows) and rows[number].peak for number in order):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path} is no plan of this version; make it again with neq plan") from None
        return found


def _number(seconds: float) -> float | None:
    """Seconds as JSON has them; None: any."""
    return None if seconds == float("inf") else seconds
