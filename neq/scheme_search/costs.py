"""What schemes of a network cost, exactly and by their parts, in the unit of a run's budget."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from neq.budget import BudgetAllocator
from neq.budget.knapsack import MarginalCosts
from neq.config import POLICIES, BackwardConfig, Config
from neq.networks.neurons import Layer
from neq.scheme_search.choice import Option, Problem
from neq.scheme_search.contributions import Contributions
from neq.selection import SelectionState, StaticScheme, listed_parameters
from neq.training import Training
from neq.utils.errors import UserError

SU = "SU"
# Trains the head alone: lists that name a conv and no neuron of it.
HEAD = StaticScheme((0,), (0.0,))


class SchemeCosts:
    """The cost of schemes on a run's network, data and step, and the budget that they must not exceed.

    Args:
        training: a run; its lists do not matter.

    Raises:
        UserError: the network has no convs, which are what schemes number.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self._allocators: dict[int, BudgetAllocator] = {}
        table = training.table
        self.convs: tuple[Layer, ...] = tuple(layer for layer in table.layers if layer.kind.is_conv)
        if not self.convs:
            name = training.config.net_config.net_name
            raise UserError(f"net_name {name!r} has no convolutions, which schemes number; take another")

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.training.config

    @property
    def unit(self) -> str:
        """The budget's."""
        return self._allocator(0).unit

    @cached_property
    def limit(self) -> int:
        """The budget.

        Raises:
            UserError: it is less than what the head costs.
        """
        return self._allocator(0).limit

    def used(self, scheme: StaticScheme) -> int:
        """The exact cost of a scheme."""
        return self._allocator(scheme.n_bias_update).used(self.chosen(scheme))

    def chosen(self, scheme: StaticScheme) -> Tensor:
        """The neurons that a scheme updates, bool [N]."""
        training = self.training
        state = SelectionState(training.table, training.network, torch.Generator(), scheme)
        return POLICIES[SU].score(state) != -torch.inf

    def parameters(self, scheme: StaticScheme) -> int:
        """What the lists of a scheme add up to, in parameters."""
        return listed_parameters(self.training.table, scheme)

    def problem(self, contributions: Contributions, biases: int) -> Problem:
        """The choice among the layers' shares while the last `biases` convs train their bias."""
        options = (
            self.option(conv, share, gain, biases) for (conv, share), gain in contributions.weights.items()
        )
        return Problem(biases, contributions.biases[biases], self.base(biases), tuple(options))

    def base(self, biases: int) -> int:
        """The cost of the head and of the last convs' biases."""
        return self._allocator(biases).costs.base

    def option(self, conv: int, share: float, gain: float = 0.0, biases: int = 0) -> Option:
        """A share of a conv with its marginal cost."""
        costs: MarginalCosts = self._allocator(biases).costs
        layer = self.convs[conv]
        first = self.training.table.slice_of(layer.name).start
        group = int(costs.layer[first])
        cost = round(share * layer.neurons) * costs.neuron[first].item() + costs.opening[group].item()
        return Option(conv, share, gain, cost, costs.depth[group].item())

    def _allocator(self, biases: int) -> BudgetAllocator:
        if biases not in self._allocators:
            lists = BackwardConfig(
                n_bias_update=biases, manual_weight_idx=HEAD.indices, weight_update_ratio=HEAD.ratios
            )
            config = self.training.config.model_copy(update={"backward_config": lists})
            self._allocators[biases] = replace(self.training, config=config).allocator(POLICIES[SU])
        return self._allocators[biases]
