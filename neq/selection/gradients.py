"""Gradients of one batch's loss with respect to every selectable weight, for policies that rank by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neq.networks.module_state import unchanged
from neq.networks.neurons import NeuronTable
from neq.utils.errors import UserError
from neq.utils.eval_mode import eval_mode

Forward = Callable[..., Any]


def batch_gradients(
    network: nn.Module, table: NeuronTable, loss_of: Callable[[Forward], Tensor]
) -> dict[str, Tensor]:
    """dL/dw of every selectable weight, from one forward and one full backward pass.

    The network runs in eval mode (running statistics, no dropout) on detached weights: its gradients, running
    statistics and flags stay as they were, and no random stream is drawn from.

    Args:
        network: the plain network.
        table: its neurons.
        loss_of: returns the loss of the batch, [], when called with the forward pass to use.

    Returns:
        Name of a parameter -> its gradient, of its shape and type; 0 where the loss does not depend on it.

    Raises:
        UserError: a layer whose weight is not a floating-point parameter.
    """
    weights, forward = detached(network, table)
    with eval_mode(network), unchanged(network), torch.enable_grad():
        loss = loss_of(forward)
        gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
    units = (layer.kind.unit(network.get_submodule(layer.name)) for layer in table.layers)
    return {
        name: gradient if unit is None else gradient / unit
        for name, gradient, unit in zip(weights, gradients, units, strict=True)
    }


def detached(network: nn.Module, table: NeuronTable) -> tuple[dict[str, Tensor], Forward]:
    """The selectable weights as leaves that share the network's memory, and the forward pass with them."""
    values = {name: parameter.detach() for name, parameter in network.named_parameters()}
    weights = {}
    for layer in table.layers:
        name = f"{layer.name}.weight"
        if name not in values or not values[name].is_floating_point():
            raise UserError(
                f"gradients of layer {layer.name!r} cannot be measured: its weight is not a floating-point "
                "parameter; take a policy that needs no gradients"
            )
        weights[name] = values[name].requires_grad_()
    return weights, lambda *inputs: functional_call(network, values, inputs)
