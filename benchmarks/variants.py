"""Ways to train a network one step: stock PyTorch's, the published simulation, layer freezing, and neq's."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neq.backward import Plan, trainable_slices
from neq.networks.neurons import NORMS, NeuronTable, Selection
from neq.training.profiling import SavedBytes


@dataclass(frozen=True)
class Task:
    """What every variant trains; each makes its own copy of the network.

    Args:
        network: plain, on the device of the images.
        table: its neurons.
        selection: layer name -> chosen channels.
        bias_layers: layers whose bias trains whole.
        norm_mode: "train", "frontier" or "frozen".
        images: [B, 3, H, W].
        labels: [B].
        optimizer: "sgd" or "adam".
        precision: "fp32", or "bf16" for autocast around the forward pass.
    """

    network: nn.Module
    table: NeuronTable
    selection: Selection
    bias_layers: Collection[str]
    norm_mode: str
    images: Tensor
    labels: Tensor
    optimizer: str = "sgd"
    precision: str = "fp32"


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Variant:
    """One way to train, ready to step.

    Args:
        model: images to class scores.
        images: in the variant's memory layout.
        labels: their classes.
        optimizer: over all that trains.
        weights: parameters, buffers and chosen rows; they do not count as saved for backward.
        before_update: called when the gradients are there.
        after_update: called when the optimizer has stepped.
        precision: as of the task.
    """

    model: Callable[[Tensor], Tensor]
    images: Tensor
    labels: Tensor
    optimizer: torch.optim.Optimizer
    weights: tuple[Tensor, ...]
    before_update: Callable[[], None] = _nothing
    after_update: Callable[[], None] = _nothing
    precision: str = "fp32"

    def loss(self) -> Tensor:
        """The forward pass."""
        is_bf16 = self.precision == "bf16"
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=is_bf16):
            outputs = self.model(self.images)
        return F.cross_entropy(outputs.float() if is_bf16 else outputs, self.labels)

    def step(self) -> None:
        """A whole training step."""
        self.loss().backward()
        self.before_update()
        self.optimizer.step()
        self.after_update()
        self.optimizer.zero_grad(set_to_none=True)

    def saved_bytes(self) -> int:
        """What a forward pass keeps for backward, in bytes, the batch itself apart."""
        saved = SavedBytes([*self.weights, self.images])
        with saved.counting():
            loss = self.loss()
        del loss
        return saved.total


def plain(task: Task) -> Variant:
    """Full training in the plain layout."""
    return _stock(copied(task))


def channels_last(task: Task) -> Variant:
    """Full training in channels_last."""
    return _stock(copied(task, torch.channels_last))


def frozen_norms(task: Task) -> Variant:
    """Full training in channels_last, norms on running statistics and without training."""
    task = copied(task, torch.channels_last)
    for norm in norms(task.network):
        norm.eval().requires_grad_(False)
    return _stock(task)


def masked(task: Task) -> Variant:
    """The published simulation: full training, the gradients of neurons that are not chosen set to zero."""
    task = copied(task)
    unchosen = ~task.table.mask(task.selection)
    masks: list[tuple[nn.Parameter, Tensor]] = []
    for layer in task.table.layers:
        rows = unchosen[task.table.slice_of(layer.name)].nonzero().flatten().to(task.images.device)
        masks += [(parameter, rows) for parameter in task.network.get_submodule(layer.name).parameters()]

    def zero() -> None:
        for parameter, rows in masks:
            assert parameter.grad is not None
            parameter.grad.index_fill_(0, rows, 0)

    return _stock(task, before_update=zero)


def requires_grad(task: Task) -> Variant:
    """Layer freezing in channels_last: a layer trains whole if one of its neurons is chosen.

    Norms are as the norm mode says; in "frozen" none of their biases trains, not even under SU.
    """
    task = copied(task, torch.channels_last)
    if task.norm_mode == "frozen":
        for norm in norms(task.network):
            norm.eval()
    trained = trainable_slices(task.network, task.table, task.selection, task.norm_mode)
    for name, parameter in task.network.named_parameters():
        parameter.requires_grad_(name in trained)
    return _stock(task)


def selective(task: Task) -> Variant:
    """neq's plan, in channels_last."""
    task = copied(task, torch.channels_last)
    plan = Plan(task.network, task.table, task.selection, task.norm_mode, task.bias_layers)
    return Variant(
        plan,
        task.images,
        task.labels,
        _optimizer(task.optimizer, plan.parameters()),
        (*task.network.parameters(), *task.network.buffers(), *plan.parameters()),
        after_update=plan.write_back,
        precision=task.precision,
    )


VARIANTS: dict[str, Callable[[Task], Variant]] = {
    "plain": plain,
    "channels_last": channels_last,
    "frozen_norms": frozen_norms,
    "masked": masked,
    "requires_grad": requires_grad,
    "selective": selective,
}


def copied(task: Task, layout: torch.memory_format = torch.contiguous_format) -> Task:
    """The task with a network of its own in train mode, weights and images in a memory layout."""
    network = copy.deepcopy(task.network).train()
    if layout is torch.channels_last:
        network = network.to(memory_format=layout)
    return dataclasses.replace(task, network=network, images=task.images.contiguous(memory_format=layout))


def norms(network: nn.Module) -> list[nn.Module]:
    """The norm layers of a network."""
    return [module for module in network.modules() if isinstance(module, NORMS)]


def _stock(task: Task, before_update: Callable[[], None] = _nothing) -> Variant:
    """The task's own network, in stock PyTorch: what requires a gradient trains."""
    trained = (parameter for parameter in task.network.parameters() if parameter.requires_grad)
    return Variant(
        task.network,
        task.images,
        task.labels,
        _optimizer(task.optimizer, trained),
        (*task.network.parameters(), *task.network.buffers()),
        before_update,
        precision=task.precision,
    )


def _optimizer(name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)
    assert name == "adam", name
    return torch.optim.Adam(parameters, lr=1e-4)
