"""The selection that a benchmark's `--selection` asks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from neq.budget import Budget
from neq.budget.knapsack import MarginalCosts, fill_by_rank
from neq.config import POLICIES, scheme
from neq.networks.neurons import NeuronTable
from neq.runs.selection_file import SelectionHistory, read_selection_history
from neq.selection import SelectionState, StaticScheme, bias_layers
from neq.utils.errors import UserError, shown
from neq.utils.seeds import generator


@dataclass(frozen=True)
class Chosen:
    """The neurons of a benchmark.

    Args:
        neurons: bool [N].
        bias_layers: layers whose bias trains whole.
    """

    neurons: Tensor
    bias_layers: tuple[str, ...] = ()


Chooser = Callable[[nn.Module, NeuronTable], Chosen]


def chooser(text: str, network_name: str) -> Chooser:
    """What chooses, for a selection as it is written.

    Args:
        text: `suN` (the lists of mbv2_scheme_N, with the biases that train under it), `random:R` (a random
            order until R of the parameters is full), `late:R` (from the last neuron backwards until one does
            not fit), `run:DIR` (those of the last epoch of a run), or `full`; R from 0 to 1.
        network_name: of the network that it is for.

    Raises:
        UserError: another text, or a scheme that has no lists for this network.
    """
    kind, _, value = text.partition(":")
    if text == "full":
        return _full
    if re.fullmatch(r"su\d+", text):
        return partial(_su, lists=_lists(f"mbv2_scheme_{text[2:]}", network_name))
    if kind == "run":
        return partial(_of_run, history=read_selection_history(Path(value)))
    choosers = {"random": _random, "late": _late}
    if kind in choosers and (share := _share(value)) is not None:
        return partial(choosers[kind], share=share)
    raise UserError(
        f"selection {shown(text)} is none of suN, random:R, late:R (R from 0 to 1), run:DIR and full"
    )


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def _lists(name: str, network_name: str) -> StaticScheme:
    entry = scheme(name)
    if network_name.removeprefix("pre_trained_") != entry.network:
        raise UserError(f"{name} lists convs of {entry.network}, not of {network_name}; take late:R")
    if not entry.manual_weight_idx:
        raise UserError(f"{name} has a ratio only, no lists; take random:{entry.ratio}")
    return StaticScheme(entry.manual_weight_idx, entry.weight_update_ratio, entry.n_bias_update)


def _full(network: nn.Module, table: NeuronTable) -> Chosen:
    return Chosen(torch.ones(len(table), dtype=torch.bool))


def _of_run(network: nn.Module, table: NeuronTable, history: SelectionHistory) -> Chosen:
    if history.layers != tuple(layer.name for layer in table.layers):
        raise UserError("the run trained another network; give --network the one of the run")
    return Chosen(torch.from_numpy(history.chosen[-1]))


def _su(network: nn.Module, table: NeuronTable, lists: StaticScheme) -> Chosen:
    state = SelectionState(table, network, generator(0, "selection"), lists)
    listed = POLICIES["SU"].score(state) != -torch.inf
    return Chosen(listed, bias_layers(table, lists))


def _random(network: nn.Module, table: NeuronTable, share: float) -> Chosen:
    state = SelectionState(table, network, generator(0, "selection"))
    budget = Budget(ratio=share).limit(table.total_parameters)
    costs = MarginalCosts.per_neuron(table.parameters)
    return Chosen(fill_by_rank(POLICIES["random"].score(state), costs, budget))


def _late(network: nn.Module, table: NeuronTable, share: float) -> Chosen:
    # Not `fill_by_rank`, which would top the budget up with small neurons of the first layers.
    backwards = table.parameters.flip(0).cumsum(0)
    budget = Budget(ratio=share).limit(table.total_parameters)
    return Chosen((backwards <= budget).flip(0))
