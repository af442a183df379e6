"""An amount that may be updated in one epoch, and filling it in rank order."""

from __future__ import annotations

import torch
from torch import Tensor

from neq.errors import UserError


def budget_amount(total: int, ratio: float | None = None, budget: int | None = None) -> int:
    """The most that may be updated in one epoch.

    Args:
        total: cost of all selectable neurons.
        ratio: share of the total, 0 or more; rounded to the nearest whole amount.
        budget: absolute amount, 0 or more; exactly one of ratio and budget is given.

    Raises:
        UserError: both or none given, or a negative one.
    """
    if (ratio is None) == (budget is None):
        raise UserError(f"give exactly one of ratio and budget, not ratio={ratio} and budget={budget}")
    amount = budget if budget is not None else round(ratio * total)  # type: ignore[operator]
    if amount < 0:
        raise UserError(f"a budget of {amount} is negative; it must be 0 or more")
    return amount


def fill(scores: Tensor, costs: Tensor, budget: int) -> Tensor:
    """Takes neurons in rank order until the budget is full, skipping those that no longer fit.

    Args:
        scores: float [N], the largest first; ties go by position, NaN comes last, and -inf is never taken.
        costs: int64 [N], 1 or more each.
        budget: the most that the costs of the taken neurons may add up to, 0 or more.

    Returns:
        The taken neurons, bool [N]. What is left of the budget is less than the cheapest neuron passed over.
    """
    assert scores.shape == costs.shape
    taken = torch.zeros(scores.shape, dtype=torch.bool)
    scores, costs = scores.cpu(), costs.cpu()
    eligible = (scores != -torch.inf).nonzero().flatten()
    ranked = scores[eligible].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    order = eligible[ranked.argsort(descending=True, stable=True)]
    if not len(order):
        return taken
    ordered = costs[order]
    fits = int((ordered.cumsum(0) <= budget).sum())  # this many are taken without skipping any
    taken[order[:fits]] = True
    left = budget - int(ordered[:fits].sum())
    cheapest = ordered.flip(0).cummin(0).values.flip(0)  # of this neuron and all behind it
    for position in range(fits, len(order)):
        if left < cheapest[position]:
            break
        if ordered[position] <= left:
            taken[order[position]] = True
            left -= int(ordered[position])
    return taken
