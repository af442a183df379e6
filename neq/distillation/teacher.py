"""The network that a run learns from: in eval mode, and never updated."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from neq.budget import CostModel, StepSpec
from neq.config import MeanStd, dataset, network, section_of
from neq.networks.build import build_network
from neq.networks.heads import HeadInputs, head_name
from neq.networks.neurons import neuron_table
from neq.networks.weights import read_weights
from neq.results.best_network import load_best
from neq.tasks import TaskInputs
from neq.utils.errors import UserError, first_line, shown
from neq.wings.distillation import DistillationSettings


class Teacher:
    """A network that images pass through without gradients.

    Args:
        network: images [B, 3, S, S], normalized by `own`, -> logits [B, K]; set to eval mode.
        own: its normalization of values in 0 .. 1.
        given: that of the images that it gets.
        precision: "fp32", or "bf16" for autocast.
    """

    def __init__(self, network: nn.Module, own: MeanStd, given: MeanStd, precision: str = "fp32") -> None:
        self.network = network.eval().requires_grad_(False)
        self._head = network.get_submodule(head_name(network))
        self._is_bf16 = precision == "bf16"
        device = next(network.parameters()).device
        mean, std, own_mean, own_std = (
            torch.tensor(each, device=device)[:, None, None]
            for each in (given.mean, given.std, own.mean, own.std)
        )
        self._scale, self._shift = std / own_std, (mean - own_mean) / own_std
        self._is_same = own == given

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and features [B, F] of images normalized as `given`."""
        if not self._is_same:
            images = images * self._scale + self._shift
        images = images.to(next(self.network.parameters()).dtype)
        with (
            HeadInputs(self._head) as kept,
            torch.autocast(images.device.type, torch.bfloat16, enabled=self._is_bf16),
        ):
            logits: Tensor = self.network(images)
        return logits, kept.found[0]

    def held_bytes(self, images: int, size: int) -> int:
        """Bytes of its weights, and of a forward pass at its peak.

        Args:
            images: of the pass.
            size: S, pixels a side.
        """
        tensors = (*self.network.parameters(), *self.network.buffers())
        spec = StepSpec((images,), (3, size, size), "frozen", "sgd", train_head=False)
        table = neuron_table(self.network, spec.image_shape, head=head_name(self.network))
        passing = CostModel(self.network, table, spec).profile({}).peak((images,))
        return sum(tensor.nbytes for tensor in tensors) + passing


def open_teacher(inputs: TaskInputs) -> Teacher:
    """The teacher that a run's settings name, on the run's device.

    Raises:
        UserError: no such run, network or weights; one of other classes, or that rejects the images.
    """
    settings, data = section_of(inputs.config, DistillationSettings), inputs.config.data_provider
    if settings.teacher is None:
        raise UserError("teacher_weights needs the network that they are of; give --teacher NAME")
    assert data.image_size is not None
    given = data.mean_std or dataset(data.dataset).mean_std
    assert given is not None, "mean_std is resolved"
    folder = Path(settings.teacher).expanduser()
    if folder.is_dir():
        if settings.teacher_weights is not None:
            raise UserError(
                "teacher_weights is not allowed with the folder of a run as teacher; leave it out"
            )
        best = load_best(folder)
        if best.classes != tuple(inputs.data.classes):
            raise UserError(
                f"the teacher {folder} has the classes {_few(best.classes)}, the data set has "
                f"{_few(inputs.data.classes)}; give a teacher of the same classes in the same order"
            )
        built, own = best.network, best.mean_std
    else:
        built = _named(settings.teacher, settings.teacher_weights, len(inputs.data.classes))
        own = network(settings.teacher).mean_std or given
    built = built.to(inputs.device).to(memory_format=torch.channels_last)
    teacher = Teacher(built, own, given, inputs.config.run_config.precision)
    try:
        teacher(torch.zeros(1, 3, data.image_size, data.image_size, device=inputs.device))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"the teacher {shown(settings.teacher)} cannot be run on images of {data.image_size} px "
            f"({first_line(error)}); give --image_size, or another teacher"
        ) from error
    return teacher


def _named(name: str, weights: str | None, classes: int) -> nn.Module:
    """A network by name, with weights whose head has a run's classes."""
    network(name)  # before its weights are missed
    if weights is None:
        raise UserError(
            f"teacher {shown(name)} is the name of a network and no folder; give --teacher_weights FILE, "
            f"with a head of the {classes} classes, or the folder of a run"
        )
    built = build_network(name, classes, weights=weights)
    head = head_name(built)
    found = read_weights(weights).get(f"{head}.weight")
    if found is None or len(found) != classes:
        has = "no head" if found is None else f"a head of {len(found)} classes"
        raise UserError(
            f"teacher_weights {shown(weights)} has {has}, the data set has {classes} classes; give weights "
            "that were trained on them, or the folder of a run"
        )
    return built


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
