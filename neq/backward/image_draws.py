"""Random draws by image: dropout draws the same for an image, however a batch is cut or shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neq.utils.seeds import generator

_FEATURE_DROPOUTS = (F.dropout1d, F.dropout2d, F.dropout3d)


class ImageDraws(TorchFunctionMode):
    """Inside, dropout and stochastic depth draw from a stream of each image, by the number of the call.

    Draws for other than one image after another, and those within attention, stay as they are.

    Args:
        seeds: of the images of a forward pass, in order.
        calls: draws before.
    """

    _current: ClassVar[ImageDraws | None] = None

    def __init__(self, seeds: Sequence[int], calls: int = 0) -> None:
        super().__init__()
        self._seeds, self._calls = seeds, calls
        self._before: ImageDraws | None = None

    def __enter__(self) -> Self:
        self._before, ImageDraws._current = ImageDraws._current, self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        ImageDraws._current = self._before

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Calls a function of torch, or what takes its place."""
        kwargs = kwargs or {}
        if func is F.dropout or func in _FEATURE_DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func is Tensor.bernoulli_ and self._is_batch(args[0]) and not kwargs.keys() - {"p"}:
            return self._fill(args[0], float(kwargs.get("p", args[1] if len(args) > 1 else 0.5)))
        return func(*args, **kwargs)

    def _dropout(
        self, func: Callable[..., Tensor], input: Tensor, p: float = 0.5, training: bool = True,
        inplace: bool = False,
    ) -> Tensor:  # fmt: skip
        """x_B... m_B... / (1 - p), with m_B... = 1 at a rate of 1 - p; of maps m_BC."""
        is_of_maps = func is not F.dropout
        if not (training and 0 < p < 1 and self._is_batch(input)) or (is_of_maps and input.dim() < 3):
            return func(input, p, training, inplace)
        shape = (*input.shape[:2], *(1,) * (input.dim() - 2)) if is_of_maps else input.shape
        mask = self._fill(torch.empty(shape, dtype=input.dtype, device=input.device), 1 - p).div_(1 - p)
        return input.mul_(mask) if inplace else input * mask

    def _is_batch(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dim() > 1 and len(value) == len(self._seeds)

    def _fill(self, out: Tensor, rate: float) -> Tensor:
        """Fills a tensor [B, ...] with ones at a rate, and zeros."""
        streams = [generator(seed, "draw", self._calls) for seed in self._seeds]
        self._calls += 1
        with torch.no_grad():
            return out.copy_(
                torch.stack([torch.empty(out.shape[1:]).bernoulli_(rate, generator=g) for g in streams])
            )


def draws_again() -> AbstractContextManager[object]:
    """A context in which the draws from this moment on are repeated."""
    now = ImageDraws._current
    return nullcontext() if now is None else ImageDraws(now._seeds, now._calls)


def has_draws(network: nn.Module) -> bool:
    """Whether a network has modules that drop values, or whole branches."""
    return any(_is_of_drops(module) for module in network.modules())


def stop_draws(network: nn.Module) -> None:
    """Sets the rates of all modules that drop values, or whole branches, to 0; the network is changed."""
    for module in network.modules():
        for rate in ("p", "drop_prob") if _is_of_drops(module) else ():
            if hasattr(module, rate):
                setattr(module, rate, 0.0)
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0


def drops(module: nn.Module) -> bool:
    """Whether a module by itself drops values, or branches, at a rate above 0 in train mode."""
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    rates = [getattr(module, rate) for rate in ("p", "drop_prob") if hasattr(module, rate)]
    return _is_of_drops(module) and (not rates or any(rates))


def _is_of_drops(module: nn.Module) -> bool:
    return "drop" in type(module).__name__.lower()
