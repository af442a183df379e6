"""Filling a budget: what a selection costs, neurons in rank order, or the most value for the cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Costs:
    """What a selection costs in one unit, as a sum over what it consists of.

    Args:
        neuron: of each neuron, int64 [N].
        layer: position of each neuron's layer, int64 [N], 0 .. L - 1, ascending.
        opening: what a layer's first chosen neuron adds once, int64 [L].
        depth: what a layer's choice needs of the layers behind it, int64 [L]; of all chosen layers only the
            largest counts, since the gradient passes the others on its way.
        base: of what always trains.
    """

    neuron: Tensor
    layer: Tensor
    opening: Tensor
    depth: Tensor
    base: int = 0

    @classmethod
    def per_neuron(cls, neuron: Tensor) -> Costs:
        """Costs that neurons have each for themselves.

        Args:
            neuron: int64 [N].
        """
        none = torch.zeros(1, dtype=torch.int64)
        return cls(neuron, torch.zeros_like(neuron), none, none)

    def total(self, chosen: Tensor) -> int:
        """Of a selection.

        Args:
            chosen: bool [N].
        """
        layers = self.layer[chosen].unique()
        deepest = int(self.depth[layers].max()) if len(layers) else 0
        return self.base + int(self.neuron[chosen].sum()) + int(self.opening[layers].sum()) + deepest


def fill(scores: Tensor, costs: Costs, limit: int) -> Tensor:
    """Takes neurons in rank order until the budget is full, skipping those that do not fit.

    Args:
        scores: float [N], the largest first; ties go by position, NaN comes last, and -inf is never taken.
        costs: of the neurons.
        limit: the most that the taken neurons may cost, 0 or more.

    Returns:
        The taken neurons, bool [N]. None that was passed over would still fit.
    """
    assert scores.shape == costs.neuron.shape
    scores = scores.cpu()
    eligible = (scores != -torch.inf).nonzero().flatten()
    ranked = scores[eligible].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    purse = _Purse(costs, limit)
    purse.take_singly(eligible[ranked.argsort(descending=True, stable=True)])
    return purse.taken


def fill_by_value(values: Tensor, costs: Costs, limit: int) -> Tensor:
    """Takes the neurons that bring the most value for the cost: a knapsack with opening charges, greedily.

    For every depth that is affordable, layers are opened and neurons taken by their value per cost (a layer
    is opened together with as many of its best neurons as make its opening worth most); the depth that brings
    the most value counts, and what is left is filled neuron by neuron.

    Args:
        values: float [N], 0 or more; NaN comes last, and -inf is never taken.
        costs: of the neurons; within a layer all neurons cost the same.
        limit: the most that the taken neurons may cost.

    Returns:
        The taken neurons, bool [N].
    """
    assert values.shape == costs.neuron.shape
    eligible = values.cpu() != -torch.inf
    values = values.cpu().double().nan_to_num(nan=-1.0, neginf=-1.0)
    bundles = _Bundles.of(values, costs)
    best, most = torch.zeros(len(bundles.price), dtype=torch.bool), -1.0
    for depth in costs.depth.unique().tolist():
        taken = bundles.affordable(costs.depth[bundles.layer] <= depth, limit - costs.base - depth)
        value = float(bundles.value[taken].sum())
        if costs.base + depth <= limit and value > most:
            best, most = taken, value
    purse = _Purse(costs, limit)
    for bundle in best.nonzero().flatten().tolist():
        purse.take_together(bundles.members[bundle], int(bundles.layer[bundle]))
    left = (eligible & ~purse.taken).nonzero().flatten()
    density = values[left] / costs.neuron[left].clamp(min=1)
    purse.take_singly(left[density.argsort(descending=True, stable=True)])
    return purse.taken


@dataclass(frozen=True)
class _Bundles:
    """Neurons that are taken together, by value per cost: a layer's first bundle pays for its opening, all
    others are single neurons.

    Args:
        members: neurons of each bundle.
        layer: of each bundle, int64 [B].
        price: of each, its layer's opening included where it is the first, int64 [B].
        value: of each, float64 [B].
    """

    members: list[list[int]]
    layer: Tensor
    price: Tensor
    value: Tensor

    @classmethod
    def of(cls, values: Tensor, costs: Costs) -> _Bundles:
        """The bundles of all neurons that are worth something, the best for its price first."""
        members: list[list[int]] = []
        layers, prices, worths = [], [], []
        for layer in costs.layer[values > 0].unique().tolist():
            neurons = ((costs.layer == layer) & (values > 0)).nonzero().flatten()
            neurons = neurons[values[neurons].argsort(descending=True, stable=True)]
            price = costs.neuron[neurons]
            together = price.cumsum(0) + costs.opening[layer]
            first = int((values[neurons].cumsum(0) / together).argmax()) + 1
            members += [neurons[:first].tolist(), *neurons[first:, None].tolist()]
            prices.append(torch.cat([together[first - 1 : first], price[first:]]))
            worths.append(torch.cat([values[neurons[:first]].sum(0, keepdim=True), values[neurons[first:]]]))
            layers += [layer] * len(prices[-1])
        if not members:
            return cls([], *(torch.zeros(0, dtype=torch.int64),) * 2, torch.zeros(0, dtype=torch.float64))
        price, value = torch.cat(prices), torch.cat(worths)
        order = (value / price).argsort(descending=True, stable=True)
        return cls(
            [members[bundle] for bundle in order.tolist()],
            torch.tensor(layers)[order],
            price[order],
            value[order],
        )

    def affordable(self, allowed: Tensor, money: int) -> Tensor:
        """The bundles that are taken one after another, bool [B]; where one does not fit, its layer ends.

        Args:
            allowed: bool [B].
            money: for all of them.
        """
        taken = allowed.clone()
        while True:
            over = (((self.price * taken).cumsum(0) > money) & taken).nonzero()
            if not len(over):
                return taken
            first = int(over[0])
            taken[first:] &= self.layer[first:] != self.layer[first]


class _Purse:
    """A budget while it is spent.

    Args:
        costs: of the neurons.
        limit: the most that may be spent.
    """

    def __init__(self, costs: Costs, limit: int) -> None:
        self.taken = torch.zeros(costs.neuron.shape, dtype=torch.bool)
        self._left = limit - costs.base
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
            if self._left < cheapest[place]:
                break
            self.take_together([position], layer)

    def take_together(self, members: list[int], layer: int) -> None:
        """Takes neurons of one layer if they fit."""
        price = sum(self._neuron[member] for member in members) + self._opening[layer]
        price += max(0, self._depth[layer] - self._deepest)
        if price <= self._left:
            self.taken[members] = True
            self._left -= price
            self._opening[layer] = 0
            self._deepest = max(self._deepest, self._depth[layer])
