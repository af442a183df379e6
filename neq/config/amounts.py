"""Sizes and times as a user writes them: 256MiB, 10min."""

from __future__ import annotations

import re
from collections.abc import Mapping

from neq.config.budget_rules import SIZES

TIMES: Mapping[str, int] = {"s": 1, "min": 60, "h": 3600}


def seconds_of(text: object) -> float:
    """The seconds of `10min`, `90s` or `1.5h`.

    Raises:
        ValueError: it is no time above 0.
    """
    return _amount(text, TIMES, "a time is expected, as 90s, 10min or 2h")


def bytes_of(text: object) -> int:
    """The bytes of `256MiB`.

    Raises:
        ValueError: it is no size above 0.
    """
    return round(_amount(text, SIZES, "a size is expected, as 256MiB or 1.5GiB"))


def _amount(text: object, units: Mapping[str, int], expected: str) -> float:
    """A number above 0 with its unit, in the smallest one."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]+)", str(text))
    if found is None or found[2] not in units or not float(found[1]):
        raise ValueError(f"{text!r} is not allowed: {expected}")
    return float(found[1]) * units[found[2]]
