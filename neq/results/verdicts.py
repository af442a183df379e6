"""How a best network that was evaluated again compares with what its run recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

AS_RECORDED, DIFFERS, NOT_MEASURED = "as recorded", "differs", "not measured"


@dataclass(frozen=True)
class Check:
    """Test top-1 of a best network that was evaluated again.

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
    def difference(self) -> float | None:
        """Measured less recorded, in points."""
        if self.top1 is None or self.recorded is None:
            return None
        return round(self.top1 - self.recorded, 6)

    @property
    def verdict(self) -> str:
        """The outcome in a word or a line."""
        if self.top1 is None:
            return f"{NOT_MEASURED}: {self.reason}"
        if not self.differs:
            return AS_RECORDED
        return f"{DIFFERS} ({self.reason})" if self.reason else DIFFERS


# By `run_key`.
Checks = Mapping[str, Check]
