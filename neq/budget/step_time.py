"""The time of a training step of any batch, micro-batch, cuts and selection, fitted to a few measured steps.

    t = o p + a m + c w

with p passes (forward and backward of a micro-batch), m the multiply-accumulates of all of them, what runs
again among them, and w the bytes of all tensors that they make. `neq.budget.latency` predicts more closely
how the time of one kind of step depends on single neurons; this one holds across kinds of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import nn

from neq.budget.cost_model import CostModel
from neq.budget.latency import measure
from neq.budget.peak import Work
from neq.budget.step_spec import StepSpec
from neq.networks.neurons import NeuronTable


@dataclass(frozen=True)
class StepTime:
    """The fitted time of a network's steps on a device.

    Args:
        of_pass, of_mac, of_byte: seconds.
        error: the largest relative error over the steps that it was fitted to.
    """

    of_pass: float
    of_mac: float
    of_byte: float
    error: float

    def __post_init__(self) -> None:
        if not all(isinstance(value, float) and 0 <= value < math.inf for value in vars(self).values()):
            raise ValueError("the time of a step has coefficients that are no times")

    @classmethod
    def fit(cls, steps: Sequence[tuple[int, Work]], seconds: Sequence[float]) -> Self:
        """The least squares of relative errors, with coefficients of 0 or more.

        Args:
            steps: of each the number of passes, and the work of all of them.
            seconds: that each took.
        """
        from scipy.optimize import nnls

        amounts = torch.tensor([(p, work.macs, work.written) for p, work in steps], dtype=torch.float64)
        relative = amounts / torch.tensor(seconds, dtype=torch.float64)[:, None]
        scale = relative.amax(0)
        found, _ = nnls((relative / scale).numpy(), torch.ones(len(steps)).numpy())
        weights = torch.from_numpy(found) / scale
        of_pass, of_mac, of_byte = weights.tolist()
        return cls(of_pass, of_mac, of_byte, float((relative @ weights - 1).abs().max()))

    def seconds(self, passes: int, work: Work) -> float:
        """The time of a step.

        Args:
            passes: forward and backward passes of the step.
            work: of all of them together.
        """
        return self.of_pass * passes + self.of_mac * work.macs + self.of_byte * work.written


def calibrate_step_time(
    network: nn.Module, table: NeuronTable, spec: StepSpec, device: torch.device
) -> StepTime:
    """Measures five steps of at most one batch, and fits the time of a step to them.

    They train everything: at once, in micro-batches, and in as many segments as there can be; and the last
    half of the layers, and every eighth neuron.

    Args:
        network: is left as it was.
        table: its neurons.
        spec: of the step; its batch in micro-batches where a whole one does not fit.
        device: that trains.
    """
    layers = sorted(table.layers, key=lambda layer: layer.order)
    everything = torch.ones(len(table), dtype=torch.bool)
    late = table.mask({each.name: torch.arange(each.neurons) for each in layers[len(layers) // 2 :]})
    images = spec.micro_batch or spec.batch_size
    base = replace(spec, micro_batch=None, checkpoint_segments=1, checkpoint_cuts=()).with_batch_size(images)
    points = CostModel(network, table, base).cut_points
    kinds = [
        (base, everything),
        (replace(base, micro_batch=-(-images // 4)), everything),
        (replace(base, checkpoint_cuts=points), everything),
        (base, late),
        (base, torch.arange(len(table)) % 8 == 0),
    ]
    steps, seconds = [], []
    for each, chosen in kinds:
        model = CostModel(network, table, each)
        steps.append(work_of_step(model, chosen))
        seconds += measure(model, [chosen], device)
    return StepTime.fit(steps, seconds)


def work_of_step(model: CostModel, chosen: torch.Tensor) -> tuple[int, Work]:
    """Passes of a step, and the work of all of them.

    Args:
        model: of the step.
        chosen: bool [N].
    """
    spec, selection = model.spec, model.table.selection(chosen)
    work = model.profile(selection).work(spec.kept_together, model.cuts(selection))
    return spec.parts, Work(*(spec.parts * each for each in work))
