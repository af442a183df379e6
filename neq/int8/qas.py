"""Quantization-aware scaling, and keeping trained codes in their range: hooks on an optimizer.

A weight W_o = q_o s_o moves by the step lr dL/dW_o that it would make in floating point if its code moves by
lr dL/dq_o / s_o^2. So before each step of the optimizer

    dL/dq_w,o <- dL/dq_w,o / s_w,o^2        dL/dq_b,o <- dL/dq_b,o / (s_w,o s_x)^2

Source: Lin et al., "On-device training under 256KB memory", NeurIPS 2022, section 3.1. Unlike its code, codes
are clamped to what a device can store after each step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.backward import Plan
from neq.int8.conv import Int8Conv
from neq.int8.description import HIGHEST_BIAS, LARGEST_WEIGHT, LOWEST_BIAS
from neq.networks import ParameterSlice


def attach(optimizer: torch.optim.Optimizer, plan: Plan, qas: bool = True) -> None:
    """Makes an optimizer's steps over the int8 layers of a plan those of quantization-aware scaling.

    Call it once, before the first step. A plan without int8 layers leaves the optimizer as it is.

    Args:
        optimizer: over the plan's parameters.
        plan: of any network.
        qas: whether gradients are scaled; codes stay in their range in any case.
    """
    weights: list[tuple[Tensor, Tensor]] = []
    biases: list[tuple[Tensor, Tensor]] = []
    for name, leaf in plan.named_parameters():
        owner, _, key = name.rpartition(".")
        module = plan.network.get_submodule(owner)
        if isinstance(module, Int8Conv):
            (weights if key == "weight" else biases).append((leaf, _scale(module, key, plan.parts[name])))

    @torch.no_grad()
    def scale(*_: object) -> None:
        for leaf, factor in (*weights, *biases):
            if leaf.grad is not None:
                leaf.grad.div_(factor)

    @torch.no_grad()
    def clamp(*_: object) -> None:
        for leaf, _factor in weights:
            leaf.clamp_(-LARGEST_WEIGHT, LARGEST_WEIGHT)
        for leaf, _factor in biases:
            leaf.clamp_(LOWEST_BIAS, HIGHEST_BIAS)

    if weights or biases:
        if qas:
            optimizer.register_step_pre_hook(scale)
        optimizer.register_step_post_hook(clamp)


def _scale(conv: Int8Conv, key: str, part: ParameterSlice) -> Tensor:
    """What a slice's gradient is divided by, float32 [n, 1, 1, 1] of a weight and [n] of a bias."""
    scales = conv.scales.double()
    if key == "bias":
        scales = scales * conv.inputs[0].scale
    if part.index is not None and part.axis == 0:
        scales = scales[part.index.to(scales.device)]
    # A dead channel's square is below float32's range, and its gradient with it: 0 / tiny stays finite.
    squared = scales.square().clamp_min(torch.finfo(torch.float32).tiny).float()
    return squared.view(-1, 1, 1, 1) if key == "weight" else squared
