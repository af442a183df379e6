"""Measuring the importance of neurons before an epoch, within the memory that the budget allows its steps.

A full backward pass would need the memory that the budget is there to save. So the gradients are measured by
plans in norm mode frozen that select a group of layers each, on micro-batches: all that such a pass keeps is
known beforehand (`CostModel`), and groups and micro-batches are chosen so that it stays below the limit;
micro-batches are never larger than those of the run's steps.
Neurons that no selection within the budget could hold are not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from neq.backward import Plan
from neq.budget import BudgetAllocator, CostModel, StepSpec, marginal_costs
from neq.budget.knapsack import MarginalCosts
from neq.networks.neurons import Layer, Selection
from neq.selection import Importance
from neq.selection.importance import Criterion
from neq.tasks import Task
from neq.training.distributed.collectives import SINGLE_PROCESS, ProcessGroup

# The most of the limit that a pass keeps for backward; the rest holds gradients. A lower share means smaller
# micro-batches in fewer passes.
_SHARE_KEPT = 0.1
# The loss of a plan on a batch, [].
LossOf = Callable[[Plan, Any], Tensor]


@dataclass(frozen=True)
class Passes:
    """How importance is measured.

    Args:
        spec: of each pass.
        groups: layer name -> channels whose gradients are measured together.
    """

    spec: StepSpec
    groups: tuple[Selection, ...]


def measure_importance(
    network: nn.Module,
    allocator: BudgetAllocator,
    task: Task[Any],
    criterion: Criterion,
    batches: tuple[int, int],
    seed: int,
    loss_of: LossOf,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Importance:
    """The importance of every neuron that the budget can afford, on an epoch's first batches.

    The network's values, running statistics and random streams stay as they were.

    Args:
        network: the plain network.
        allocator: the budget on the run's steps; one in bytes limits the passes too.
        task: yields the batches.
        criterion: scores the neurons.
        batches: the epoch, and how many of its batches; at most all.
        seed: of dropout.
        loss_of: the loss of a plan on a batch.
        processes: that share the batches.
    """
    table, epoch = allocator.model.table, batches[0]
    count = min(batches[1], task.steps_per_epoch)
    neurons = torch.zeros(len(table), dtype=torch.float64)
    passes = plan_passes(network, allocator, criterion.sample == "image", task.has_micro_batches)
    for group in passes.groups:
        plan = passes.spec.plan(network, table, group)
        gradients = _Gradients(plan, {layer.name: layer for layer in table.layers if layer.name in group})
        devices = {leaf.device for leaf in plan.parameters() if leaf.is_cuda}
        totals = dict.fromkeys(group, torch.tensor(0.0))
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(seed)
            for batch in islice(task.batches(epoch, 0), count):
                for part, share in task.micro_batches(batch, passes.spec.parts):
                    loss = loss_of(plan, part)
                    if criterion.sample == "image":
                        loss.backward()
                        _add(totals, gradients.scores(criterion), share * task.share / count)
                    else:
                        (loss * share * task.share).backward()
                if criterion.sample == "batch":
                    _add(totals, gradients.scores(criterion, processes), 1 / count)
        if criterion.sample == "all":
            _add(totals, gradients.scores(criterion, processes, 1 / count), 1.0)
        for name, channels in group.items():
            found = processes.sum(totals[name]) if criterion.sample == "image" else totals[name]
            neurons[table.slice_of(name).start + channels.cpu()] = found.double().cpu()
        gradients.clear()
    return Importance(neurons, _layer_bytes(allocator))


class _Gradients:
    """The gradients of a plan's chosen weights, by layer.

    Args:
        plan: after its backward passes.
        layers: those whose weights it chose.
    """

    def __init__(self, plan: Plan, layers: dict[str, Layer]) -> None:
        self._plan, self._layers = plan, layers
        self._leaves = dict(plan.named_parameters())
        self.clear()

    def clear(self) -> None:
        """Sets all gradients of the plan to zero, and frees them."""
        for leaf in self._plan.parameters():
            leaf.grad = None

    def scores(
        self, criterion: Criterion, processes: ProcessGroup = SINGLE_PROCESS, scale: float = 1.0
    ) -> dict[str, Tensor]:
        """The score of each chosen neuron by layer, [n]; the gradients are cleared.

        Args:
            criterion: scores them.
            processes: whose gradients are added up.
            scale: of the gradients.
        """
        found = {}
        for name, layer in self._layers.items():
            leaf = self._leaves[f"{name}.weight"]
            gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            weights, gradient = leaf.detach(), processes.sum(gradient) * scale
            unit = layer.kind.unit(self._plan.network.get_submodule(name))
            if unit is not None:
                unit = self._plan.parts[f"{name}.weight"].take(unit)
                weights, gradient = weights * unit, gradient / unit
            weights, gradient = (each.transpose(0, layer.axis).flatten(1) for each in (weights, gradient))
            found[name] = criterion.score(weights.float(), gradient.float())
        self.clear()
        return found


def _add(totals: dict[str, Tensor], scores: dict[str, Tensor], weight: float) -> None:
    for name, score in scores.items():
        totals[name] = totals[name].to(score) + weight * score


def plan_passes(network: nn.Module, allocator: BudgetAllocator, per_image: bool, can_split: bool) -> Passes:
    """The passes that measure importance, few of them: most of the limit goes to gradients.

    Args:
        network: the plain network.
        allocator: the budget on the run's steps.
        per_image: whether images must be passed through one by one, where batches can be cut.
        can_split: whether they can be cut into micro-batches.
    """
    table, spec = allocator.model.table, _frozen(allocator.model.spec)
    limit, wanted = _limit(allocator), _affordable(allocator)
    if can_split and per_image:
        spec = replace(spec, micro_batch=1)
    elif can_split and limit is not None and bool(wanted.any()):
        costs = marginal_costs(CostModel(network, table, spec), "bytes")
        kept = int((costs.depth + costs.opening)[costs.layer[wanted].unique()].max())
        images = int(spec.batch_size * (limit - costs.base) * _SHARE_KEPT // max(1, kept))
        spec = replace(spec, micro_batch=min(max(1, images), spec.micro_batch or spec.batch_size))
    return Passes(spec, _groups(CostModel(network, table, spec), wanted, limit))


def pass_bytes(network: nn.Module, allocator: BudgetAllocator) -> int:
    """The most training memory that a pass takes, where batches can be cut.

    Args:
        network: the plain network.
        allocator: the budget on the run's steps.
    """
    limit = _limit(allocator)
    if limit is not None:
        return limit
    table = allocator.model.table
    selection = table.selection(_affordable(allocator))
    return CostModel(network, table, _frozen(allocator.model.spec)).step(selection).training_bytes


def _frozen(spec: StepSpec) -> StepSpec:
    return replace(
        spec, norm_mode="frozen", optimizer="sgd", bias_layers=(), checkpoint_segments=1, checkpoint_cuts=()
    )


def _limit(allocator: BudgetAllocator) -> int | None:
    """The most bytes of a pass; None where the budget is not one in bytes."""
    return allocator.limit if allocator.unit == "bytes" else None


def _affordable(allocator: BudgetAllocator) -> Tensor:
    """The neurons that a budget can hold at all, bool [N]."""
    costs = allocator.costs
    alone = costs.base + costs.neuron + (costs.opening + costs.depth)[costs.layer]
    return alone <= allocator.limit


def _groups(model: CostModel, wanted: Tensor, limit: int | None) -> tuple[Selection, ...]:
    """Selections of the wanted neurons whose passes stay within the limit, from the last layer to the first.

    Args:
        model: of the passes.
        wanted: bool [N].
        limit: in bytes; None: there is none.
    """
    selection = model.table.selection(wanted)
    if limit is None or not selection:
        return (selection,) if selection else ()
    costs = marginal_costs(model, "bytes")
    groups: list[Selection] = []
    group = torch.zeros_like(wanted)
    for piece in _pieces(model, costs, wanted, limit):
        if bool(group.any()) and costs.total(group | piece) > limit:
            groups.append(model.table.selection(group))
            group = torch.zeros_like(wanted)
        group = group | piece
    if bool(group.any()):
        groups.append(model.table.selection(group))
    return tuple(part for each in groups for part in _within(model, each, limit))


def _pieces(model: CostModel, costs: MarginalCosts, wanted: Tensor, limit: int) -> Iterator[Tensor]:
    """Neurons of one layer that a pass can measure together, bool [N]: the last layer's first."""
    numbers = sorted(range(len(model.table.layers)), key=lambda number: -model.table.layers[number].order)
    for number in numbers:
        place = model.table.slice_of(model.table.layers[number].name)
        left = limit - costs.base - int(costs.opening[number]) - int(costs.depth[number])
        fitting = max(1, left // max(1, int(costs.neuron[place.start])))
        for positions in (place.start + wanted[place].nonzero().flatten()).split(fitting):
            if len(positions):
                yield torch.zeros_like(wanted).index_fill_(0, positions, True)


def _within(model: CostModel, group: Selection, limit: int) -> Iterator[Selection]:
    """A group, or its halves where its exact cost is above the limit; what exceeds it alone is left out."""
    if model.step(group).training_bytes <= limit:
        yield group
        return
    names = list(group)
    if len(names) > 1:
        halves = [{name: group[name] for name in part} for part in (names[::2], names[1::2])]
    else:
        channels = group[names[0]]
        halves = [{names[0]: part} for part in channels.tensor_split(2) if 0 < len(part) < len(channels)]
    for half in halves:
        yield from _within(model, half, limit)


def _layer_bytes(allocator: BudgetAllocator) -> Tensor:
    """Training memory of each layer with all its neurons, float64 [L], without that of layers behind it."""
    costs = allocator.costs if allocator.unit == "bytes" else marginal_costs(allocator.model, "bytes")
    whole = torch.zeros(len(costs.opening), dtype=torch.int64).index_add(0, costs.layer, costs.neuron)
    return (whole + costs.opening).double()
