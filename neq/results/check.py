"""A best network measured on the test set again, held against what its run recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DIFFERS = "differs"


@dataclass(frozen=True)
class Check:
    """What the test set said when a best network was measured again.

    Args:
        top1: in per cent; none: it could not be measured.
        recorded: by the run, in per cent.
        reason: why it could not be measured, or what explains a difference.
    """

    top1: float | None
    recorded: float | None
    reason: str = ""

    @property
    def differs(self) -> bool:
        """Whether it is another figure than the recorded one."""
        if self.top1 is None or self.recorded is None:
            return self.top1 is not None
        return abs(self.top1 - self.recorded) > 1e-6

    @property
    def said(self) -> str:
        """In a word or a line."""
        if self.top1 is None:
            return f"not measured: {self.reason}"
        if not self.differs:
            return "as recorded"
        return f"{DIFFERS} ({self.reason})" if self.reason else DIFFERS


# By `run_key`.
Checks = Mapping[str, Check]
