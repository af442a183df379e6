"""Casting the inputs of autograd functions under autocast."""

from __future__ import annotations

import torch
from torch import Tensor


def autocast(x: Tensor) -> Tensor:
    """An input cast as autocast would cast it, which leaves autograd functions of our own alone."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return x
    if x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))
