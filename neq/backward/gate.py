"""The product of a map and a gate of each channel, as at the end of squeeze-and-excite blocks.

    y_BCHW = x_BCHW s_BC,   dL/dx = s dL/dy,   dL/ds_BC = sum over HW of x dL/dy

Where x can be recomputed from what earlier layers save, the product keeps the gates alone. The layer behind
it recomputes y, its input, from the same tensors.

Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, eq. 4.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.recompute import RecomputeSpec, mark_recomputable, recompute_spec


class GatedMap(Function):
    """x s, of which backward keeps s, and what x is recomputed from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor, recompute: RecomputeSpec) -> Tensor:
        """Args: x, [B, C, H, W]; gates, [B, C, 1, 1]; recompute: how to recompute x."""
        ctx.compute = recompute.compute
        ctx.save_for_backward(gates, *(recompute.kept if ctx.needs_input_grad[1] else ()))
        return x * gates

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gates, *kept = ctx.saved_tensors
        to_x = grad * gates if ctx.needs_input_grad[0] else None
        to_gates = None
        if ctx.needs_input_grad[1]:
            to_gates = (grad * ctx.compute(*kept)).sum((2, 3), keepdim=True)
        return to_x, to_gates, None


class GateProduct(nn.Module):
    """The stand-in of a product of two results in a traced network."""

    def forward(self, a: Any, b: Any) -> Any:
        """Args: a, b: whatever the network multiplies. Returns: a * b."""
        if _is_gate(b, a):
            return gated(a, b)
        return gated(b, a) if _is_gate(a, b) else a * b


def gated(x: Tensor, gates: Tensor) -> Tensor:
    """x s, from which the next layer recomputes its input.

    Args:
        x: [B, C, H, W].
        gates: s, [B, C, 1, 1], of x's type.
    """
    if not (x.requires_grad or gates.requires_grad):
        return x * gates
    recompute = recompute_spec(x) or RecomputeSpec((x.detach(),), _itself)
    out: Tensor = GatedMap.apply(x, gates, recompute)
    if gates.requires_grad:  # else x is kept by nobody
        compute = recompute.compute
        kept = (*recompute.kept, gates.detach())
        spec = RecomputeSpec(kept, lambda *kept: compute(*kept[:-1]) * kept[-1], recompute.by_channel)
        mark_recomputable(out, spec)
    return out


def _itself(x: Tensor) -> Tensor:
    return x


def _is_gate(gates: Any, x: Any) -> bool:
    """Whether one is a map of more than one position, and the other a value for each of its channels."""
    if not (isinstance(x, Tensor) and isinstance(gates, Tensor)) or x.dim() != 4 or x.dtype != gates.dtype:
        return False
    return gates.shape == (*x.shape[:2], 1, 1) and x.shape[2] * x.shape[3] > 1
