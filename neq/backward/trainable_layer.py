"""What trains in one layer, as its stand-in sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neq.networks.parameter_slice import ParameterSlice


@dataclass(frozen=True)
class TrainableLayer:
    """What trains in a selectable layer.

    Args:
        weight: the leaf that holds the chosen slice of the weight, or all of it; None: nothing of it trains.
        part: which slice.
        bias: returns the bias [out] at each call, as a function of whatever trains in it.
        saved_dtype: type that the layer's input is kept in for backward; None: its own.
        in_place: names of the module's own parameters that are leaves themselves.
    """

    weight: Tensor | None
    part: ParameterSlice
    bias: Callable[[], Tensor | None]
    saved_dtype: torch.dtype | None = None
    in_place: tuple[str, ...] = ()

    @property
    def is_stock(self) -> bool:
        """Whether the module's own parameters train whole, so that torch's own operations serve."""
        return self.part.is_whole and "weight" in self.in_place and self.saved_dtype is None
