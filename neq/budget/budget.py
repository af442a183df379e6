"""An amount that may be updated in one epoch: parameters, bytes of training memory, or backward MACs."""

from __future__ import annotations

from dataclasses import dataclass

from neq.utils.errors import UserError, shown

UNITS = ("parameters", "bytes", "macs")


@dataclass(frozen=True)
class Budget:
    """The most that an epoch may update.

    Args:
        unit: "parameters" (weights of chosen neurons), "bytes" (training memory of a step: kept for backward,
            gradients, optimizer state) or "macs" (multiply-accumulates of a step's backward pass, one image).
        amount: in that unit, 0 or more; none: the ratio counts.
        ratio: share of what choosing everything costs, 0 or more.

    Raises:
        UserError: not exactly one of amount and ratio, a negative one, or an unknown unit.
    """

    unit: str = "parameters"
    amount: int | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UserError(f"budget_unit {shown(self.unit)} is unknown; take one of {', '.join(UNITS)}")
        if (self.amount is None) == (self.ratio is None):
            raise UserError(
                f"give exactly one of ratio and budget, not ratio={self.ratio} and budget={self.amount}"
            )
        given = self.ratio if self.amount is None else self.amount
        if given is None or not given >= 0:
            raise UserError(f"a budget of {given} is negative; it must be 0 or more")

    def limit(self, total: int) -> int:
        """The budget as an amount.

        Args:
            total: what choosing everything costs, in the budget's unit; a ratio of it is rounded.
        """
        if self.amount is not None:
            return self.amount
        assert self.ratio is not None
        return round(self.ratio * total)


def amount_shown(amount: int, unit: str) -> str:
    """An amount with its unit, for people."""
    if unit == "bytes":
        return f"{amount:,} bytes ({amount / 2**20:,.2f} MiB)"
    return f"{amount:,} {'MACs' if unit == 'macs' else unit}"
