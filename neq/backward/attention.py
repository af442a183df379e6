"""Attention that keeps its queries, keys and values alone, and results that only move values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from neq.backward.recompute import RecomputeSpec, mark_recomputable, recompute_spec

# The longest sequence of keys over which attention is computed once more in backward rather than kept: up to
# here that costs less than a layer of a transformer.
MOST_KEYS = 256
_MOVES: set[Callable[..., Any]] = {
    *(torch.roll, F.pad, Tensor.roll, Tensor.contiguous, Tensor.reshape, Tensor.flatten),
    *(torch.reshape, torch.flatten),
}


class Attention(Function):
    """softmax(q k^T s + m) v, of which q, k, v and m are kept; it is computed once more in backward.

    Stock attention keeps its result too, and, unfused, the products of all queries and keys.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: Callable[..., Tensor]
    ) -> Tensor:
        """Args: q [..., L, E], k [..., S, E], v [..., S, D] and mask, as torch's
        scaled_dot_product_attention takes them; call: that function with its other arguments."""
        ctx.save_for_backward(q, k, v, mask)
        ctx.call = call
        return call(q, k, v, mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, mask = ctx.saved_tensors
        with torch.enable_grad():
            inputs = [
                x.detach().requires_grad_(needs)
                for x, needs in zip(inputs, ctx.needs_input_grad[:3], strict=True)
            ]
            out = ctx.call(*inputs, mask)
        wanted = [x for x in inputs if x.requires_grad]
        found = iter(torch.autograd.grad(out, wanted, grad))
        return (*(next(found) if x.requires_grad else None for x in inputs), None, None)


class RecomputeMode(TorchFunctionMode):
    """Inside, attention keeps less, and what only moves the values of a recomputable tensor is so too."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Calls a function of torch, or what takes its place."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        out = func(*args, **kwargs)
        if func in _MOVES and out is not args[0] and out._base is None and out.requires_grad:
            spec = recompute_spec(args[0])
            if spec is not None:
                moved = partial(_moved, spec.compute, func, args[1:], kwargs)
                mark_recomputable(out, RecomputeSpec(spec.kept, moved, by_channel=False))
        return out


def _moved(
    compute: Callable[..., Tensor], move: Callable[..., Tensor], args: Any, kwargs: Any, *kept: Tensor
) -> Tensor:
    return move(compute(*kept), *args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *further: Any,
    **options: Any,
) -> Tensor:
    """Torch's scaled_dot_product_attention, or `Attention` in its place."""
    call = partial(_call, further, options)
    keeps_less = (
        dropout_p == 0
        and key.shape[-2] <= MOST_KEYS
        and torch.is_grad_enabled()
        and any(x.requires_grad for x in (query, key, value))
        and not (attn_mask is not None and attn_mask.requires_grad)
        and not torch.is_autocast_enabled(query.device.type)
    )
    if not keeps_less:
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, *further, **options)
    out: Tensor = Attention.apply(query, key, value, attn_mask, call)
    kept = tuple(x.detach() for x in (query, key, value, attn_mask) if x is not None)
    mark_recomputable(out, RecomputeSpec(kept, call, by_channel=False))
    return out


def _call(
    further: Any, options: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, mask, 0.0, *further, **options)


def fuse_attention(network: nn.Module) -> None:
    """Lets attention modules that can call torch's attention, as those of timm can, do so."""
    for module in network.modules():
        if vars(module).get("fused_attn") is False:
            module.fused_attn = True  # type: ignore[assignment]
