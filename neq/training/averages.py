"""An exponential moving average of the network's weights, kept for the rows that have trained.

    a_t = d_t a_(t-1) + (1 - d_t) w_t,    d_t = min(d, (1 + t) / (10 + t)),    a_0 = w_0

where t counts the run's steps from 1. A step costs the rows that it trains: other rows do not change, so over
the steps of an epoch their average only comes closer to them,

    a_t = w + (prod of d_s) (a_0 - w),

which is done once, at its end. Rows that have never trained are their own average, and are not kept. Running
statistics of norms, averages already, are used as they are.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the warm-up of d
is that of TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from neq.backward import Plan
from neq.networks.parameter_slice import ParameterSlice, named_tensor


def decay_at(decay: float, step: int) -> float:
    """d_t: at the start of a run lower than d, so that the first weights are soon forgotten.

    Args:
        decay: d.
        step: t, from 1.
    """
    return min(decay, (1 + step) / (10 + step))


@dataclass
class Averages:
    """The averages of a run.

    Args:
        decay: d, 0 < d < 1.
        rows: parameter's name -> which rows of it have trained, and their averages.
        steps: t so far.
        settled: t up to which rows that do not train in this epoch are averaged.
    """

    decay: float
    rows: dict[str, tuple[ParameterSlice, Tensor]] = field(default_factory=dict)
    steps: int = 0
    settled: int = 0

    @torch.no_grad()
    def enter(self, plan: Plan) -> None:
        """Adds the rows that a plan trains for the first time; they are their own averages so far."""
        for name, part in plan.parts.items():
            whole = named_tensor(plan.network, name)
            if name not in self.rows:
                self.rows[name] = part.on(whole.device), part.take(whole.detach())
                continue
            kept, values = self.rows[name]
            both = _union(kept, part.on(whole.device))
            if not both.same(kept):
                self.rows[name] = both, both.take(kept.put(whole.detach().clone(), values))

    @torch.no_grad()
    def update(self, plan: Plan) -> None:
        """Averages the rows that a step has trained."""
        self.steps += 1
        weight = 1 - decay_at(self.decay, self.steps)
        for name, leaf in plan.named_parameters():
            kept, values = self.rows[name]
            place = _place(kept, plan.parts[name])
            place.put(values, place.take(values).lerp_(leaf.detach(), weight))

    @torch.no_grad()
    def settle(self, plan: Plan) -> None:
        """Averages the rows that the plan of the last steps did not train, all these steps at once."""
        weight = 1 - math.prod(decay_at(self.decay, t) for t in range(self.settled + 1, self.steps + 1))
        self.settled = self.steps
        for name, (kept, values) in self.rows.items():
            closer = values.lerp(kept.take(named_tensor(plan.network, name).detach()), weight)
            if name in plan.parts:
                place = _place(kept, plan.parts[name])
                place.put(closer, place.take(values))
            values.copy_(closer)

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """Inside the context the network has its averages; afterwards what it had, bit for bit."""
        self._swap(network)
        try:
            yield
        finally:
            self._swap(network)

    @torch.no_grad()
    def _swap(self, network: nn.Module) -> None:
        """Exchanges weights and averages; one parameter at a time is copied."""
        for name, (part, values) in self.rows.items():
            whole = named_tensor(network, name).detach()
            former = part.take(whole)
            part.put(whole, values)
            values.copy_(former)

    @torch.no_grad()
    def averaged(self, network: nn.Module) -> dict[str, Tensor]:
        """The state_dict of the network with its averages."""
        found = network.state_dict()
        for name, (part, values) in self.rows.items():
            found[name] = part.put(found[name].clone(), values)
        return found

    def state(self) -> dict[str, Any]:
        """Plain values and tensors."""
        rows = {name: {**vars(part), "values": values} for name, (part, values) in self.rows.items()}
        return {**vars(self), "rows": rows}

    @classmethod
    def of_state(cls, state: Mapping[str, Any], device: torch.device) -> Self:
        """Rebuilds what `state` returned, on a device."""
        rows = {
            name: (ParameterSlice(kept["index"], kept["axis"]).on(device), kept["values"].to(device))
            for name, kept in state["rows"].items()
        }
        return cls(**{**state, "rows": rows})


def _union(first: ParameterSlice, second: ParameterSlice) -> ParameterSlice:
    """The rows of both; all of the tensor where they are slices along different axes."""
    if first.index is None or second.index is None or first.axis != second.axis:
        return ParameterSlice()
    return ParameterSlice(torch.cat([first.index, second.index]).unique(), first.axis)


def _place(kept: ParameterSlice, part: ParameterSlice) -> ParameterSlice:
    """Where rows lie among those that are kept, which hold them.

    Args:
        kept: rows whose values are kept.
        part: some of them.
    """
    if kept.index is None or part.index is None:
        return part
    return ParameterSlice(torch.searchsorted(kept.index, part.index.to(kept.index.device)), part.axis)
