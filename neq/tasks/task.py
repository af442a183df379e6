"""The protocol between the training loop and a task.

The loop owns the network, its plan, the optimizer, the schedule, checkpoints and processes. A task owns the
batches, the loss, what is counted, and the scores. A task exchanges nothing between processes: the loop adds
up the counts, and `Forward.mean` averages what the loss needs of the whole batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from neq.config import OBJECTIVES, Config, DataProvider
from neq.config.objectives import TASK_RULES
from neq.data import Data

Batch = TypeVar("Batch")
# Sums over images, by name, such as images and hits: values add up over batches and processes.
Counts = Mapping[str, Tensor | int]


class Forward(Protocol):
    """The network as a task calls it: the plan in a step, the plain network in an evaluation."""

    def __call__(self, x: Tensor) -> Tensor:
        """One forward pass in the run's precision.

        Args:
            x: this process' share of a batch, on the device, in channels_last.
        """

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over the whole batch, where processes share it: m = sum_p share_p * value_p.

        The gradient of m passes to this process' value as it is. The loop averages parameter gradients by the
        same shares, so a loss f(m) has the gradient of one process with the whole batch: sum_p share_p f'(m)
        dvalue_p.

        Args:
            value: the mean over this process' share, of the same shape in every process.
        """

    def displace(self, loss: Tensor, radius: float) -> None:
        """Moves what trains to w + radius g / |g|, g = dloss/dw, until the step's backward pass ends.

        Forward passes that follow are made there, and so are the gradients of the step's loss. What no
        optimizer steps on stays where it is: in an evaluation, or where gradients are only measured.

        Args:
            loss: mean over this process' share, [], with a graph, which is freed.
            radius: above 0.
        """


@dataclass(frozen=True)
class StepOutput:
    """What a task computes from a batch.

    Args:
        loss: mean over this process' share of the batch, [], with a graph.
        counts: sums over this process' share, without a graph; the same names at every step.
    """

    loss: Tensor
    counts: Counts


@dataclass(frozen=True)
class TaskInputs:
    """What the task of a run is made from.

    Args:
        config: resolved.
        data: the run's data set.
        device: where batches go.
        network: the plain network, on the device.
        open_data: opens a further data set for this process, with the run's seed; it is closed with the run,
            and its images are part of the run's identity as those of `data` are.
        notes: called with each line for the user.
    """

    config: Config
    data: Data
    device: torch.device
    network: nn.Module
    open_data: Callable[[DataProvider], Data]
    notes: Callable[[str], object] = lambda line: None


class Task(Protocol[Batch]):
    """What a run learns. Subclass it: what has a default here may be left out.

    Attributes:
        steps_per_epoch: training batches of an epoch.
        share: of each training batch, the part that this process has, above 0; all of them together 1.
        best_by: the score of the validation split that the best epoch has the highest of.
        forwards: batches of the run that a step passes through, one in each call of `forward` unless `passes`
            returns otherwise. Cost model and budget count all of them.
        extra_saved_bytes: bytes that the task's own modules keep for backward in a step, all processes
            together. What a loss keeps of the outputs does not count.
        held_bytes: bytes in one process of what the task holds beside its parameters, as a network that is
            not trained, at its peak. The memory prediction counts them.
        copies: of each value of the network that trains, which a step keeps beside it. The memory prediction
            and a budget in bytes count them.
        has_micro_batches: whether `micro_batches` cuts a batch into any number of parts.
        fixed_parts: the number of parts above 1 that it cuts one into where it does not; 0: none.
    """

    steps_per_epoch: int
    share: float
    best_by: str
    forwards: int = 1
    extra_saved_bytes: int = 0
    held_bytes: int = 0
    copies: int = 0
    has_micro_batches: bool = False
    fixed_parts: int = 0

    @classmethod
    def of_run(cls, inputs: TaskInputs) -> Self:
        """The task of a run that names it as its objective (`neq.config.register_objective`).

        Raises:
            UserError: the configuration, the data or the network does not fit the task.
        """
        name = cls.__name__  # a body of more than a raise: a subclass may leave it out
        raise NotImplementedError(f"{name} is no objective of a run: it has no of_run")

    @classmethod
    def start_weights(cls, config: Config) -> str:
        """The weights that the network is built with before it is `prepared`; by default the settings'.

        Args:
            config: of the run.
        """
        return config.net_config.weights

    @classmethod
    def prepared(cls, network: nn.Module, config: Config) -> nn.Module:
        """The network that the task trains, from the one that the run's settings name; by default that one.

        Args:
            network: may be changed in place.
            config: of the run.
        """
        return network

    @classmethod
    def passes(cls, config: Config) -> tuple[int, ...]:
        """The batches of images in each forward pass of a step; by default one in each of `forwards` passes.

        Args:
            config: of the run.
        """
        return (1,) * cls.forwards

    @abstractmethod
    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The training batches of an epoch, on the device; the same ones whenever they are asked for.

        Args:
            epoch: from 0.
            start: number of the first batch; a run that is resumed in mid-epoch skips the ones before it.
        """

    @abstractmethod
    def step(self, forward: Forward, batch: Batch) -> StepOutput:
        """Loss and counts of a batch. A policy that needs gradients calls it before an epoch too.

        Args:
            forward: to be called once for each of `passes`.
            batch: as `batches` yields it.
        """

    def micro_batches(self, batch: Batch, parts: int) -> Iterator[tuple[Batch, float]]:
        """A batch in parts, each with its share of the batch: sum_k share_k loss_k is the batch's loss.

        By default a batch is one part.

        Args:
            batch: as `batches` yields it.
            parts: of nearly equal sizes, the largest first; fewer where there are fewer images.
        """
        yield batch, 1.0

    @abstractmethod
    def evaluate(self, network: Forward, split: str) -> Iterator[Counts]:
        """Counts of each batch of a split, over every image once, in any of the processes.

        Args:
            network: in eval mode, without gradients.
            split: "validation" or "test".
        """

    def tested(self) -> tuple[Data, Iterator[tuple[Tensor, ...]]] | None:
        """The data set of the test split, and its images with their labels, in the order of `Data.names`.

        None, as by default: the task has no labelled images.
        """
        return None

    @abstractmethod
    def scores(self, counts: Counts) -> dict[str, float]:
        """Scores from counts that are added up, in the order of a report.

        Args:
            counts: of an epoch's steps, or of an evaluation. Of an epoch's steps the loop adds the mean loss
                to the scores; of an evaluation a score named "loss" must be finite.
        """

    def velocity_data(self, data: Data) -> Sequence[Data]:
        """The data sets on whose velocity images velocities are measured; by default the run's.

        Args:
            data: of the run.
        """
        return (data,)

    def extra_parameters(self) -> Mapping[str, nn.Parameter]:
        """Parameters beside the network's that train with it, by name; on the device, the same on all ranks.

        They are saved in checkpoints, and count in the memory prediction and in a budget in bytes.
        """
        return {}

    def state(self) -> dict[str, Any]:
        """What else a resumed run needs, as plain values and tensors, the same on all ranks."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned.

        Raises:
            ValueError: it is not the state of this task.
        """
        if state:
            raise ValueError(f"the task has no state, the checkpoint has {', '.join(state)}")


def task_class(objective: str) -> type[Task[Any]]:
    """The class of an objective's task.

    Args:
        objective: a name of `neq.config.OBJECTIVES`.
    """
    found: type[Task[Any]] = _imported(OBJECTIVES[objective].task)
    return found


def task_of_run(inputs: TaskInputs) -> Task[Any]:
    """The task of a run: that of its objective, and what is registered for its settings around it.

    Raises:
        UserError: the configuration, the data or the network does not fit.
    """
    task = task_class(inputs.config.objective).of_run(inputs)
    for applies, place in TASK_RULES:
        if applies(inputs.config):
            task = _imported(place)(task, inputs)
    return task


def _imported(place: str) -> Any:
    """What MODULE:NAME names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def add_counts(totals: Counts, counts: Counts) -> Counts:
    """Counts added to totals; a name that is new starts from 0."""
    return {**totals, **{name: totals.get(name, 0) + value for name, value in counts.items()}}
