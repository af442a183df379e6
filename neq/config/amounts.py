"""Budgets as people write them: `192311`, `1.5M`, `30%`, `64MiB`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from neq.utils.errors import UserError, shown

_MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_SIZES = {
    **{"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
}


def spelled_out(flat: Mapping[str, object]) -> dict[str, object]:
    """Settings in which a written budget has become a number: a share is a ratio, a size is in bytes.

    Args:
        flat: leaf -> value, from one source.

    Raises:
        UserError: a budget that cannot be read, or that contradicts the ratio or unit beside it.
    """
    budget = flat.get("budget")
    if not isinstance(budget, str):
        return dict(flat)
    found = re.fullmatch(r"\s*(\d[\d_]*(?:\.\d+)?|\.\d+)\s*([A-Za-z%]*)\s*", budget)
    suffix = found[2] if found else "?"
    if found is None or suffix not in {"%", *_MULTIPLES, *_SIZES}:
        raise UserError(
            f"budget {shown(budget)} is not allowed: "
            "give a number (192311, 1.5M), a share (30%) or a size (64MiB)"
        )
    number = Decimal(found[1].replace("_", ""))
    if suffix == "%":
        ratio = float(number / 100)
        if flat.get("ratio") not in (None, ratio):
            raise UserError(f"ratio {flat['ratio']} and budget {budget} are both given; give one of them")
        return {**flat, "ratio": ratio, "budget": None}
    amount = number * _MULTIPLES.get(suffix, _SIZES.get(suffix, 1))
    if suffix not in _SIZES:
        if amount != round(amount):
            raise UserError(f"budget {shown(budget)} is not allowed: it is no whole number; a share is 30%")
        return {**flat, "budget": round(amount)}
    if flat.get("budget_unit") not in (None, "bytes"):
        raise UserError(
            f"budget {budget} is a size, but budget_unit is {shown(flat['budget_unit'])}; "
            "give a number, or leave budget_unit out"
        )
    return {**flat, "budget": round(amount), "budget_unit": "bytes"}
