"""A budget: the most that one epoch may update, in parameters, or that a step of it may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from neq.utils.errors import UserError, unknown_name

if TYPE_CHECKING:  # a budget needs no configuration
    from neq.config import NEqConfig

UNITS = ("parameters", "bytes", "macs", "time")


@dataclass(frozen=True)
class Budget:
    """The most that an epoch may update: an amount, or a ratio of what choosing everything costs.

    Args:
        unit: "parameters" (weights of chosen neurons), "bytes" (training memory of a step: kept for backward,
            gradients, optimizer state), "macs" (multiply-accumulates of a step's backward pass, one image) or
            "time" (nanoseconds of a step, as predicted).
        amount: in that unit, 0 or more.
        ratio: 0 or more, finite.

    Raises:
        UserError: not exactly one of amount and ratio, one that is not a number of 0 or more, or an unknown
            unit.
    """

    unit: str = "parameters"
    amount: int | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown_name("budget unit", self.unit, UNITS)
        both = {"amount": self.amount, "ratio": self.ratio}
        given = {name: value for name, value in both.items() if value is not None}
        if len(given) != 1:
            raise UserError(
                f"a budget needs either an amount or a ratio, not amount={self.amount} and ratio={self.ratio}"
            )
        ((name, value),) = given.items()
        if not 0 <= value < math.inf:
            raise UserError(f"budget {name} {value} is not allowed; it must be a finite number, 0 or more")

    @classmethod
    def of_config(cls, config: NEqConfig) -> Self:
        """The budget of a resolved configuration."""
        return cls(config.budget_unit, config.budget, config.ratio)

    def limit(self, total: int) -> int:
        """The budget as an amount: itself, or round(ratio * total).

        Args:
            total: what choosing everything costs, in the budget's unit.
        """
        if self.amount is not None:
            return self.amount
        assert self.ratio is not None
        return round(self.ratio * total)


def amount_shown(amount: int, unit: str) -> str:
    """An amount with its unit, for people."""
    if unit == "bytes":
        return f"{amount:,} bytes ({amount / 2**20:,.2f} MiB)"
    if unit == "time":
        return f"{amount / 10**6:,.3f} ms"
    return f"{amount:,} {'MACs' if unit == 'macs' else unit}"
