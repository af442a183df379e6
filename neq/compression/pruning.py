"""Structured pruning: whole neurons are removed, by torch-pruning, which knows what depends on what."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import neq.compression.widths  # noqa: F401  # registers the transform
from neq.compression.changed import Compressed
from neq.compression.movement import Movement
from neq.compression.widths import changed_widths, widths
from neq.utils.errors import UserError, first_line, unknown_name
from neq.utils.seeds import seed_for
from neq.wings.compression import IMPORTANCES

_BY_GRADIENTS = {"taylor"}
# Sign of the movement that is the importance.
BY_MOVEMENT = {"velocity": -1.0, "velocity-least": 1.0}
Batches = Iterable[tuple[Tensor, Tensor]]


def prune(
    start: Compressed,
    images: Tensor,
    share: float,
    *,
    importance: str = "magnitude",
    round_to: int = 8,
    batches: Batches = (),
    moved: Movement | None = None,
) -> Compressed:
    """Removes the same share of the neurons of every layer but the head, the least important ones.

    Importance of a neuron, summed over all layers that lose it together: `magnitude`, the norm |w|_2 of its
    weights; `taylor`, |sum of w dL/dw| over some training images; `random`. Or, the mean over these layers,
    `velocity`, -|v| with |v| = 1 - phi of `neq.compression.movement`: those go whose response moved most in
    the run, and those near equilibrium stay; `velocity-least`, |v|: those go whose response moved least.

    Args:
        start: stays as it is.
        images: float32 [1, 3, S, S], of the size that the network is used with.
        share: of the neurons of each layer, above 0 and below 1.
        importance: one of IMPORTANCES.
        round_to: widths stay multiples of it.
        batches: images [B, 3, S, S] and labels [B], of `taylor`.
        moved: |v| by layer, of `velocity` and `velocity-least`.

    Raises:
        UserError: torch-pruning is not installed, or cannot prune this network.

    Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023; Molchanov et al.,
        "Importance Estimation for Neural Network Pruning", CVPR 2019, for `taylor`; Bragagnolo et al., "To
        update or not to update?", NeurIPS 2022, for phi, which they do not prune by.
    """
    if find_spec("torch_pruning") is None:
        raise UserError("pruning needs torch-pruning, which is not installed; pip install 'neq[compression]'")
    import torch_pruning

    if importance not in IMPORTANCES:
        raise unknown_name("importance", importance, IMPORTANCES)
    if importance in BY_MOVEMENT and not moved:
        raise UserError(f"importance {importance} needs how far the neurons of a run moved; give a run")
    network = copy.deepcopy(start.network)
    rules: dict[str, Callable[[], Any]] = {
        "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
        "taylor": torch_pruning.importance.GroupTaylorImportance,
        "random": torch_pruning.importance.RandomImportance,
        **{name: partial(_by_movement, network, moved or {}, sign) for name, sign in BY_MOVEMENT.items()},
    }
    before = widths(network)
    try:
        # It warns of parameters outside layers, which are checked below; `random` draws from torch's state.
        with warnings.catch_warnings(action="ignore"), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_for(0, "pruning"))
            pruner = torch_pruning.pruner.BasePruner(
                network,
                images,
                importance=rules[importance](),
                pruning_ratio=share,
                round_to=round_to,
                ignored_layers=[network.get_submodule(start.recipe.head)],
            )
            if importance in _BY_GRADIENTS:
                _add_gradients(network, batches)
            pruner.step()
    except Exception as error:  # of a network that it cannot follow, in many ways
        raise UserError(f"{start.recipe.net_name} cannot be pruned ({first_line(error)})") from error
    layers = changed_widths(before, widths(network))
    if not layers:
        raise UserError(
            f"a share of {share:g} removes nothing at widths of multiples of {round_to}; "
            "give a larger one, or a smaller --round-to"
        )
    return start.by("widths", network.state_dict(), layers=layers)


def _add_gradients(network: nn.Module, batches: Batches) -> None:
    """Sums up the gradients of the cross entropy in the network's parameters."""
    network.zero_grad()
    for images, labels in batches:
        cross_entropy(network(images), labels).backward()


def _by_movement(network: nn.Module, moved: Movement, sign: float) -> Callable[[Any], Tensor | None]:
    """An importance of torch-pruning: of each channel of a group the mean movement of its neurons.

    Args:
        network: that is pruned.
        moved: by the names of its layers.
        sign: that it is multiplied by.
    """
    from torch_pruning.pruner import function

    of_layer: Mapping[nn.Module, Tensor] = {network.get_submodule(name): each for name, each in moved.items()}
    outputs = (
        function.prune_conv_out_channels,
        function.prune_depthwise_conv_out_channels,
        function.prune_linear_out_channels,
    )

    def importance(group: Any) -> Tensor | None:
        total = torch.zeros(len(group[0].idxs), dtype=torch.float64)
        members = torch.zeros_like(total)
        for member in group:
            dependency, places = member.dep, member.root_idxs
            if dependency.pruning_fn not in outputs or dependency.layer not in of_layer or None in places:
                continue
            index, values = torch.tensor(places), of_layer[dependency.layer][member.idxs]
            total.index_add_(0, index, values)
            members.index_add_(0, index, torch.ones_like(values, dtype=torch.float64))
        return sign * total / members.clamp(min=1) if members.any() else None

    return importance
