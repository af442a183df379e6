"""Velocity: ranks neurons by how fast the similarity of their outputs changes, per parameter.

With phi_t the similarity of a neuron's outputs after epoch t to those before it (`similarity`), delta_t =
phi_t - phi_{t-1}, and a velocity v_t made of delta_t and v_{t-1} (`VelocityState.after_epoch`),

    score_i = |v_t,i| / parameters_i        value_i = |v_t,i|

Source: Bragagnolo et al., "To update or not to update? Neurons at equilibrium in deep models", NeurIPS 2022
(phi, velocity); Quelennec et al., arXiv 2312.05282 (velocity per parameter under a budget).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neq.selection.state import SelectionState
from neq.utils.errors import UserError


@dataclass(frozen=True)
class VelocityState:
    """What velocity carries from one epoch to the next.

    Args:
        phi: similarity of each neuron's outputs to those an epoch before, float64 [N], -1 .. 1.
        memory: v_t of either rule, float64 [N].
        velocity: what neurons are ranked by, signed, float64 [N]: v (published) or r (reference).
    """

    phi: Tensor
    memory: Tensor
    velocity: Tensor

    @classmethod
    def start(cls, neurons: int) -> VelocityState:
        """Before the first epoch: phi = 1 and v = 0."""
        zero = torch.zeros(neurons, dtype=torch.float64)
        return cls(torch.ones(neurons, dtype=torch.float64), zero, zero)

    def after_epoch(self, phi: Tensor, mu: float, rule: str) -> VelocityState:
        """The state after one more epoch.

        Args:
            phi: similarity of each neuron's outputs now to those before the epoch, float64 [N].
            mu: 0 <= mu < 1.
            rule: "published", v_t = delta_t - mu * v_{t-1} with delta_t = phi_t - phi_{t-1}; or "reference",
                what the published code computes: r_t = v_{t-1} - d_t, then v_t = mu * r_t + d_t, with
                d_t = -delta_t, ranked by r_t.
        """
        delta = phi - self.phi
        if rule == "published":
            velocity = delta - mu * self.memory
            return VelocityState(phi, velocity, velocity)
        assert rule == "reference", rule
        velocity = self.memory + delta
        return VelocityState(phi, mu * velocity - delta, velocity)


def score(state: SelectionState) -> Tensor:
    """|velocity| per parameter of the neuron, float64 [N].

    Raises:
        UserError: no velocity has been measured yet.
    """
    return value(state) / state.table.parameters


def value(state: SelectionState) -> Tensor:
    """|velocity|, float64 [N].

    Raises:
        UserError: no velocity has been measured yet.
    """
    if state.velocity is None:
        raise UserError("velocity has nothing to rank by before one epoch has been trained")
    return state.velocity.abs()
