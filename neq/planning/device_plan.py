"""The plan of a run for a device: all configurations as judged, and what exceeded the limit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from neq.config.writing import flow_value
from neq.planning.rules import Limits
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

FORMAT = 1
# Things that can be learned that are compared by what they gain.
MOST_ALTERNATIVES = 8
# Rows that are tried before a run is refused.
MOST_HITS = 2
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
    def learning(self) -> str:
        """What it learns, in words: rows that share it differ in costs alone."""
        share = "as set" if self.share is None else f"{self.share:.0%}"
        norms, ghost = str(self.settings["norm_mode"]), self.settings.get("ghost_batch_size")
        norms += "" if ghost is None else f" in groups of {ghost}"
        return f"{share}, {norms} norms, {self.settings['saved_precision']}"

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
        number = next(self._left(), None)
        if number is None:
            raise UserError("every plan has exceeded the memory limit or needs as much; raise --memory")
        return number

    @property
    def alternatives(self) -> dict[str, int]:
        """The preferred row of each of the first things that can be learned, by what it learns."""
        found = dict[str, int]()
        for number in self._left():
            found.setdefault(self.rows[number].learning, number)
        return dict(list(found.items())[:MOST_ALTERNATIVES])

    def _left(self) -> Iterator[int]:
        """The rows that may run, the preferred first: those well below what exceeded the limit."""
        below = min((_NEXT_BELOW * hit.predicted for hit in self.hits), default=math.inf)
        return (number for number in self.order if self.peak(number) < below)

    def peak(self, number: int) -> int:
        """The predicted bytes of a row that survives."""
        peak = self.rows[number].peak
        assert peak is not None
        return peak

    @property
    def chosen(self) -> PlannedRow:
        """The row that runs."""
        return self.rows[self.number]

    def exceeded(self, used: int, number: int | None = None) -> DevicePlan:
        """The plan after a row exceeded the limit.

        Args:
            used: bytes that it took.
            number: of the row; None: the one that runs.
        """
        number = self.number if number is None else number
        return replace(self, hits=(*self.hits, Hit(number, used, self.peak(number))))

    def check_hits(self) -> None:
        """Checks that another row may be tried.

        Raises:
            UserError: too many have exceeded the limit.
        """
        if len(self.hits) >= MOST_HITS:
            above = max(hit.used for hit in self.hits) - self.limits.memory
            raise UserError(
                f"{MOST_HITS} plans have exceeded the limit, by up to {above / 2**20:,.1f} MiB; "
                "make a plan for a higher --memory"
            )

    def described(self, number: int | None = None) -> str:
        """A row in one line.

        Args:
            number: None: the one that runs.
        """
        number = self.number if number is None else number
        settings = ", ".join(
            f"{key} {flow_value(value)}" for key, value in self.rows[number].settings.items()
        )
        return f"plan {number}, {self.peak(number) / 2**20:,.1f} MiB predicted: {settings}"

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        write_text(path, json.dumps(self.content(), indent=1) + "\n")

    def content(self) -> dict[str, Any]:
        """Plain values, as the file holds them."""
        limits = {"memory": self.limits.memory, "deadline": _number(self.limits.deadline)}
        return {**asdict(self), "format": FORMAT, "limits": limits}

    @classmethod
    def read(cls, path: Path) -> DevicePlan:
        """Reads what `write` wrote.

        Raises:
            UserError: the file cannot be read, or is no plan of this version.
        """
        content = read_object(path)
        try:
            return cls.of_content(content)
        except ValueError:
            raise UserError(f"{path} is no plan of this version; make it again with neq plan") from None

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> DevicePlan:
        """Reads what `content` returned.

        Raises:
            ValueError: it is something else.
        """
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
        except (KeyError, TypeError, UserError) as error:
            raise ValueError(error) from None
        return found


def _number(seconds: float) -> float | None:
    """Seconds as JSON has them; None: any."""
    return None if seconds == float("inf") else seconds
