"""The knapsack of a budget: what a selection costs, filling it by rank, or by value for the cost.

For a selection S of neurons and the layers L(S) that hold them, the cost is modelled as

    c(S) = base + sum_{i in S} neuron_i + sum_{l in L(S)} opening_l + max_{l in L(S)} depth_l

and S must satisfy c(S) <= limit. By rank, neurons are added in a given order where they fit; by value, S
should also maximize sum_{i in S} value_i, which is done greedily.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MarginalCosts:
    """The terms of a selection's cost, in one unit, of N neurons in L layers.

    Args:
        neuron: of each neuron, int64 [N].
        layer: number of each neuron's layer, int64 [N], 0 .. L - 1, ascending.
        opening: what a layer's first chosen neuron adds once, int64 [L].
        depth: what choosing in a layer costs in the layers behind it, int64 [L]; of all chosen layers only
            the largest counts, since the gradient passes the others on its way.
        base: of what always trains.
    """

    neuron: Tensor
    layer: Tensor
    opening: Tensor
    depth: Tensor
    base: int = 0

    @classmethod
    def per_neuron(cls, neuron: Tensor) -> MarginalCosts:
        """Costs without openings, depth and base.

        Args:
            neuron: int64 [N].
        """
        none = torch.zeros(1, dtype=torch.int64)
        return cls(neuron, torch.zeros_like(neuron), none, none)

    def total(self, chosen: Tensor) -> int:
        """c(S) of a selection.

        Args:
            chosen: bool [N].
        """
        layers = self.layer[chosen].unique()
        deepest = int(self.depth[layers].max()) if len(layers) else 0
        return self.base + int(self.neuron[chosen].sum()) + int(self.opening[layers].sum()) + deepest


def fill_by_rank(scores: Tensor, costs: MarginalCosts, limit: int) -> Tensor:
    """Takes neurons in rank order until the budget is full, skipping those that do not fit.

    Args:
        scores: float [N], the largest first; ties go by position, NaN comes last, and -inf is never taken.
        costs: of the neurons.
        limit: the most that the taken neurons may cost, 0 or more.

    Returns:
        The taken neurons, bool [N]. None that was skipped would still fit.
    """
    assert scores.shape == costs.neuron.shape
    scores = scores.cpu()
    eligible = (scores != -torch.inf).nonzero().flatten()
    ranked = scores[eligible].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    remaining = _Remaining(costs, limit)
    remaining.take_singly(eligible[ranked.argsort(descending=True, stable=True)])
    return remaining.taken


def fill_by_value(values: Tensor, costs: MarginalCosts, limit: int) -> Tensor:
    """Takes the neurons of the most value for their cost: a greedy knapsack with opening costs.

    For each depth d among the layers', only layers with depth_l <= d are admitted and limit - base - d is
    spent on bundles by value per cost: a layer's first bundle holds its k best neurons, k = argmax of

        (value_1 + ... + value_k) / (opening + neuron_1 + ... + neuron_k),

    all others a neuron each. The depth with the largest sum of values counts, and what remains is filled
    neuron by neuron, by value per cost. Where going by value alone finds more, that is taken: so the sum is
    never below that of the most valuable neuron that fits.

    Args:
        values: float [N], 0 or more; NaN comes last, and -inf is never taken.
        costs: of the neurons; within a layer all neurons cost the same.
        limit: the most that the taken neurons may cost.

    Returns:
        The taken neurons, bool [N].
    """
    assert values.shape == costs.neuron.shape
    eligible = values.cpu() != -torch.inf
    finite = values.cpu().double().nan_to_num(nan=-1.0, neginf=-1.0)
    bundles = _Bundles.of(finite, costs)
    best, most = torch.zeros(len(bundles.cost), dtype=torch.bool), -1.0
    for depth in costs.depth.unique().tolist():
        admitted = set((costs.depth <= depth).nonzero().flatten().tolist())
        taken = bundles.affordable(admitted, limit - costs.base - depth)
        value = float(bundles.value[taken].sum())
        if costs.base + depth <= limit and value > most:
            best, most = taken, value
    remaining = _Remaining(costs, limit)
    for bundle in best.nonzero().flatten().tolist():
        remaining.take_together(bundles.members[bundle], int(bundles.layer[bundle]))
    left = (eligible & ~remaining.taken).nonzero().flatten()
    density = finite[left] / costs.neuron[left].clamp(min=1)
    remaining.take_singly(left[density.argsort(descending=True, stable=True)])
    by_rank = fill_by_rank(values, costs, limit)
    return max(remaining.taken, by_rank, key=lambda taken: worth(values, taken))


def worth(values: Tensor, chosen: Tensor) -> float:
    """The sum of the chosen neurons' values, NaN as 0; the same whatever adds it up.

    Args:
        values: float [N].
        chosen: bool [N].
    """
    return math.fsum(value for value in values.cpu()[chosen].tolist() if not math.isnan(value))


@dataclass(frozen=True)
class _Bundles:
    """B bundles of neurons that are taken together, by value per cost, the largest first.

    Args:
        members: neurons of each bundle.
        layer: of each bundle, int64 [B].
        cost: of each, the opening of its layer included where it is the layer's first, int64 [B].
        value: of each, float64 [B].
    """

    members: list[list[int]]
    layer: Tensor
    cost: Tensor
    value: Tensor

    @classmethod
    def of(cls, values: Tensor, costs: MarginalCosts) -> _Bundles:
        """The bundles of all neurons of positive value.

        Args:
            values: float64 [N].
            costs: of the neurons.
        """
        members: list[list[int]] = []
        layers, all_costs, all_values = [], [], []
        for layer in costs.layer[values > 0].unique().tolist():
            neurons = ((costs.layer == layer) & (values > 0)).nonzero().flatten()
            neurons = neurons[values[neurons].argsort(descending=True, stable=True)]
            cost = costs.neuron[neurons]
            together = cost.cumsum(0) + costs.opening[layer]
            first = int((values[neurons].cumsum(0) / together).argmax()) + 1
            members += [neurons[:first].tolist(), *neurons[first:, None].tolist()]
            all_costs.append(torch.cat([together[first - 1 : first], cost[first:]]))
            all_values.append(
                torch.cat([values[neurons[:first]].sum(0, keepdim=True), values[neurons[first:]]])
            )
            layers += [layer] * len(all_costs[-1])
        if not members:
            return cls([], *(torch.zeros(0, dtype=torch.int64),) * 2, torch.zeros(0, dtype=torch.float64))
        cost, value = torch.cat(all_costs), torch.cat(all_values)
        order = (value / cost).argsort(descending=True, stable=True)
        return cls(
            [members[bundle] for bundle in order.tolist()],
            torch.tensor(layers)[order],
            cost[order],
            value[order],
        )

    def affordable(self, layers: set[int], remaining: int) -> Tensor:
        """The bundles that are taken one after another, bool [B]; where one does not fit, its layer ends.

        Args:
            layers: whose bundles may be taken.
            remaining: budget for all of them.
        """
        taken = []
        for cost, layer in zip(self.cost.tolist(), self.layer.tolist(), strict=True):
            fits = layer in layers and cost <= remaining
            if fits:
                remaining -= cost
            else:
                layers.discard(layer)
            taken.append(fits)
        return torch.tensor(taken, dtype=torch.bool)


class _Remaining:
    """What remains of a budget while neurons are taken.

    Args:
        costs: of the neurons.
        limit: the budget.

    Attributes:
        taken: bool [N].
    """

    def __init__(self, costs: MarginalCosts, limit: int) -> None:
        self.taken = torch.zeros(costs.neuron.shape, dtype=torch.bool)
        self._remaining = limit - costs.base
        self._costs = costs
        self._neuron = costs.neuron.tolist()
        self._opening = costs.opening.tolist()
        self._depth = costs.depth.tolist()
        self._deepest = 0

    def take_singly(self, order: Tensor) -> None:
        """Takes every neuron that fits, in order.

        Args:
            order: positions, int64 [n].
        """
        layers = self._costs.layer[order].tolist()
        # The cheapest neuron from each place on: where not even that one fits, nothing does.
        cheapest = self._costs.neuron[order].flip(0).cummin(0).values.flip(0).tolist()
        for place, (position, layer) in enumerate(zip(order.tolist(), layers, strict=True)):
            if self._remaining < cheapest[place]:
                break
            self.take_together([position], layer)

    def take_together(self, members: list[int], layer: int) -> None:
        """Takes neurons of one layer if they fit together.

        Args:
            members: positions.
            layer: its number.
        """
        cost = sum(self._neuron[member] for member in members) + self._opening[layer]
        cost += max(0, self._depth[layer] - self._deepest)
        if cost <= self._remaining:
            self.taken[members] = True
            self._remaining -= cost
            self._opening[layer] = 0
            self._deepest = max(self._deepest, self._depth[layer])
