"""A latency model of the training step: the time of a step under any selection, fitted to measured steps.

With amounts a_k(S) of work that a selection S causes, counted in closed form, and coefficients w_k >= 0,

    t(S) = sum over k of w_k a_k(S)

Each a_k has the form of `MarginalCosts` (what always occurs, by neuron, by opened layer, by depth), but for
what is saved where all neurons of a layer are chosen. So marginal costs are never below t, and a budget in
time is filled as any other. It is a prediction: a busy device takes longer.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neq.budget.cost_model import CostModel, earliest_trained, input_gradient_macs
from neq.budget.knapsack import MarginalCosts
from neq.networks.neurons import Layer, NeuronTable

# What the amounts are; "passed" is work for gradients that pass a layer, "chosen" for those of weights.
TERMS = (
    *("step", "dense_macs_passed", "grouped_macs_passed", "values_passed", "layers_passed"),
    *("dense_macs_chosen", "grouped_macs_chosen", "values_sliced", "layers_chosen"),
    *("inputs_chosen", "weights_chosen"),
)
_ROUNDS = 3


@dataclass(frozen=True)
class Amounts:
    """The amounts of T terms, of N neurons in L layers, as `MarginalCosts` has those of one; float64.

    Args:
        neuron: of each neuron of a layer [L, T].
        sliced: of each neuron on top, unless all of the layer are chosen [L, T].
        opening: of a layer's first chosen neuron [L, T].
        depth: if a layer is the earliest chosen one [L, T].
        base: whatever is chosen [T].
        layer: number of each neuron's layer, int64 [N].
    """

    neuron: Tensor
    sliced: Tensor
    opening: Tensor
    depth: Tensor
    base: Tensor
    layer: Tensor

    @classmethod
    def of_model(cls, model: CostModel) -> Self:
        """Those of a step.

        Args:
            model: of the step.
        """
        table, images = model.table, model.spec.images
        first = min(table.layers, key=lambda layer: layer.order)
        inputs = model.kept({first.name: torch.tensor([0])}).inputs
        neuron, sliced, opening = [], [], []
        for layer in table.layers:
            kind = "dense" if layer.kind.groups(model.network.get_submodule(layer.name)) == 1 else "grouped"
            macs = images * layer.macs
            neuron.append(_row({f"{kind}_macs_chosen": macs, "weights_chosen": layer.parameters}))
            sliced.append(_row({"values_sliced": macs / layer.parameters}))
            read = inputs[layer.name][1][0].numel() * images / model.spec.kept_together[0]
            opening.append(_row({"layers_chosen": 1, "inputs_chosen": read}))
        base = _row(_passed(model, None))
        depth = torch.stack([_row(_passed(model, layer)) for layer in table.layers]) - base
        sizes = torch.tensor([layer.neurons for layer in table.layers])
        return cls(
            torch.stack(neuron),
            torch.stack(sliced),
            torch.stack(opening),
            depth.clamp(min=0),
            base,
            torch.arange(len(sizes)).repeat_interleave(sizes),
        )

    def of(self, chosen: Tensor) -> Tensor:
        """Those of a selection [T].

        Args:
            chosen: bool [N].
        """
        counts = torch.bincount(self.layer[chosen], minlength=len(self.neuron)).double()
        is_part = counts < torch.bincount(self.layer)
        opened = counts > 0
        depth = self.depth[opened].amax(0) if opened.any() else 0
        neurons = counts @ self.neuron + (counts * is_part) @ self.sliced
        return self.base + neurons + self.opening[opened].sum(0) + depth


@dataclass(frozen=True)
class Latency:
    """The fitted time of a step.

    Args:
        nanoseconds: of one unit of each term; what is missing takes none.
        error: the largest relative error over the steps that it was fitted to.
    """

    nanoseconds: Mapping[str, float]
    error: float

    @classmethod
    def fit(cls, amounts: Tensor, seconds: Sequence[float]) -> Self:
        """The least squares of relative errors over P steps, w >= 0: min sum_p (t_p / measured_p - 1)^2.

        Args:
            amounts: of each step, float64 [P, T].
            seconds: that each took.
        """
        from scipy.optimize import nnls

        relative = amounts / (torch.tensor(seconds, dtype=torch.float64)[:, None] * 1e9)
        scale = relative.amax(0).clamp(min=torch.finfo(torch.float64).tiny)
        found, _ = nnls((relative / scale).numpy(), torch.ones(len(seconds)).numpy())
        weights = torch.from_numpy(found) / scale
        error = float((relative @ weights - 1).abs().max())
        return cls({name: value for name, value in zip(TERMS, weights.tolist(), strict=True) if value}, error)

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuilds what `state` returned.

        Raises:
            ValueError: it is something else.
        """
        named, error = state.get("nanoseconds"), state.get("error")
        if not isinstance(named, dict) or not named.keys() <= set(TERMS) or not named.get("step"):
            raise ValueError("the latency model has other terms")
        if not all(isinstance(value, float) and 0 <= value < 1e18 for value in (*named.values(), error)):
            raise ValueError("the latency model has coefficients that are no times")
        assert isinstance(error, float)
        return cls(named, error)

    def state(self) -> dict[str, Any]:
        """Plain values, as JSON and a checkpoint hold them."""
        return {"nanoseconds": dict(self.nanoseconds), "error": self.error}

    def times(self, model: CostModel) -> Times:
        """The predicted times of a step on the device that was measured.

        Args:
            model: of the step.
        """
        return Times(Amounts.of_model(model), _row(self.nanoseconds))


@dataclass(frozen=True)
class Times:
    """The predicted times of one kind of step, in whole nanoseconds, rounded up.

    Args:
        amounts: of the step.
        weights: the coefficients w, nanoseconds [T].
    """

    amounts: Amounts
    weights: Tensor

    def of(self, chosen: Tensor) -> int:
        """t(S) of a selection.

        Args:
            chosen: bool [N].
        """
        return int(self._whole(self.amounts.of(chosen)))

    @property
    def costs(self) -> MarginalCosts:
        """What neurons, layers and depth add, where no layer is chosen whole."""
        amounts = self.amounts
        return MarginalCosts(
            self._whole(amounts.neuron + amounts.sliced).clamp(min=1)[amounts.layer],
            amounts.layer,
            self._whole(amounts.opening),
            self._whole(amounts.depth),
            int(self._whole(amounts.base)),
        )

    def _whole(self, amounts: Tensor) -> Tensor:
        return (amounts @ self.weights).ceil().long()


def calibrate(model: CostModel, device: torch.device) -> Latency:
    """Measures steps of a few selections on a device, and fits the latency model to them.

    Takes 96 steps and the memory of one in which everything trains.

    Args:
        model: of the step; its network is left as it was.
        device: that trains.
    """
    selections, amounts = calibration_selections(model.table), Amounts.of_model(model)
    return Latency.fit(
        torch.stack([amounts.of(each) for each in selections]), measure(model, selections, device)
    )


def calibration_selections(table: NeuronTable) -> list[Tensor]:
    """The selections that are measured, bool [N] each.

    Nothing; and from four depths on, one neuron of the first layer there, and in all layers behind it a share
    of the neurons: one, a quarter, half or all. The depths share the values of all feature maps evenly.
    """
    stream = torch.Generator().manual_seed(0)
    ranks = torch.cat([torch.randperm(layer.neurons, generator=stream) for layer in table.layers])
    layers = sorted(table.layers, key=lambda layer: -layer.order)
    values = torch.tensor([layer.neurons * layer.macs / layer.parameters for layer in layers]).cumsum(0)

    def chosen(among: Sequence[Layer], share: float) -> Tensor:
        mask = torch.zeros(len(table), dtype=torch.bool)
        for layer in among:
            place = table.slice_of(layer.name)
            mask[place] = ranks[place] < max(1, round(share * layer.neurons))
        return mask

    found = [chosen([], 0)]
    for depth, shares in ((0.25, (0.25, 1)), (0.5, (0, 0.25, 1)), (0.75, (0.25, 1)), (1, (0, 0.25, 0.5, 1))):
        behind = layers[: int((values < depth * values[-1]).sum()) + 1]
        found += [chosen(behind[-1:], 0), *(chosen(behind, share) for share in shares)]
    return found


def measure(
    model: CostModel, selections: Sequence[Tensor], device: torch.device, rounds: int = _ROUNDS
) -> list[float]:
    """The seconds of a training step under each selection: the least of a few, taken in turns.

    On a CPU with one thread they are those that the processor worked, which other processes change little;
    elsewhere those that passed.

    Args:
        model: of the step; its network is left as it was.
        selections: bool [N] each.
        device: that trains.
        rounds: steps of each, every one after another that does not count.
    """
    cuda = [device] if device.type == "cuda" else []
    network = copy.deepcopy(model.plain_network).to(device)
    with torch.random.fork_rng(devices=cuda):
        steps = [_step(network, model, chosen, device) for chosen in selections]
        clock = _clock(device)
        seconds = [[_seconds(step, clock) for step in steps] for _ in range(rounds)]
    return [min(each) for each in zip(*seconds, strict=True)]


def _step(network: nn.Module, model: CostModel, chosen: Tensor, device: torch.device) -> Callable[[], None]:
    """A step on random images that leaves the weights as they are."""
    spec, selection = model.spec, model.table.selection(chosen)
    plan = spec.plan(network, model.table, selection, cuts=model.cuts(selection))
    parameters = list(plan.parameters())
    kinds: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(parameters, lr=0.0),
        "sgd with momentum": lambda: torch.optim.SGD(parameters, lr=0.0, momentum=0.9),
        "adam": lambda: torch.optim.Adam(parameters, lr=0.0),
        "adamw": lambda: torch.optim.AdamW(parameters, lr=0.0),
    }
    optimizer = kinds[spec.optimizer]()
    dtype = next(network.parameters()).dtype
    batches = [
        torch.randn((images, *spec.image_shape), generator=torch.Generator().manual_seed(0))
        .to(device, dtype)
        .contiguous(memory_format=torch.channels_last)
        for images in spec.kept_together
    ]

    def step() -> None:
        for _ in range(spec.parts):
            losses = []
            for images in batches:
                with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
                    out = plan(images)
                labels = torch.zeros(len(out), dtype=torch.long, device=device)
                losses.append(F.cross_entropy(out.float(), labels))
            torch.stack(losses).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()

    return step


def _clock(device: torch.device) -> Callable[[], float]:
    if device.type == "cuda":

        def waited() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return waited
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def _seconds(step: Callable[[], None], clock: Callable[[], float]) -> float:
    step()  # as in training, memory is there from a step before
    start = clock()
    step()
    return clock() - start


def _passed(model: CostModel, chosen: Layer | None) -> dict[str, float]:
    """What the gradient passes if one neuron of a layer, or none at all, is chosen."""
    table, spec = model.table, model.spec
    selection = {} if chosen is None else {chosen.name: torch.tensor([0])}
    parts = spec.trainable_slices(model.network, table, selection)
    macs, start = input_gradient_macs(table, parts), earliest_trained(table, parts)
    found = dict.fromkeys(TERMS, 0.0) | {"step": 1}
    for layer in table.layers:
        module = model.network.get_submodule(layer.name)
        kind = "dense" if layer.kind.groups(module) == 1 else "grouped"
        found[f"{kind}_macs_passed"] += spec.images * macs[layer.name]
        if start is not None and layer.last >= start:
            found["layers_passed"] += 1
            values = layer.kind.neurons(module, 0) * layer.macs / layer.parameters
            found["values_passed"] += spec.images * values
    return found


def _row(named: Mapping[str, float]) -> Tensor:
    """Values by term, float64 [T]."""
    return torch.tensor([named.get(name, 0.0) for name in TERMS], dtype=torch.float64)
