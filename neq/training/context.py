"""A training: what it trains and on what, and what it carries from one epoch to the next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from neq.backward import NamedState, Plan, SyncBatchStats
from neq.budget import STATIC, Allocation, Budget, BudgetAllocator, CostModel
from neq.config import Config
from neq.data import Data
from neq.networks.neurons import NeuronTable
from neq.selection import SelectionState, StaticScheme, VelocityState, bias_layers
from neq.tasks import Task
from neq.training.checkpoint import Checkpoints
from neq.training.distributed.collectives import SINGLE_PROCESS, ProcessGroup
from neq.training.epoch_state import EpochState
from neq.training.optimizer import optimizer_kind
from neq.training.stopping import Stop
from neq.training.tracker import Tracker
from neq.utils.seeds import generator


@dataclass
class Progress:
    """What a training carries from one epoch to the next; a checkpoint is this, the network and the task.

    Args:
        epoch: the next one, or the one that is interrupted.
        policy: that chose the last epoch's neurons.
        chosen: the last epoch's neurons, bool [N].
        optimizer: the last epoch's optimizer state of the network's parameters, by name.
        task_optimizer: the same of the task's own parameters.
        velocity: under the velocity policy.
        best: of the best epoch by validation: epoch, and its scores as `val_NAME` and `test_NAME` (see
            `best_scores`); and the highest test score of all epochs, by which nothing is chosen.
        budget_used_max: the most of its budget that an epoch has used.
        selected_parameters_max: the most parameters that an epoch has updated.
        trained_beside_max: the most values outside the budget that an epoch has trained, by kind.
        step_seconds: median step of each epoch, in seconds.
        saved_bytes: kept for backward by one step, measured once.
        epoch_state: of the interrupted epoch, if one is. Then `optimizer` is the state after its last step;
            everything else is as it was before the epoch.
    """

    epoch: int = 0
    policy: str | None = None
    chosen: Tensor | None = None
    optimizer: NamedState = field(default_factory=dict)
    task_optimizer: NamedState = field(default_factory=dict)
    velocity: VelocityState | None = None
    best: dict[str, Any] = field(default_factory=dict)
    selected_parameters_max: int = 0
    budget_used_max: int = 0
    trained_beside_max: dict[str, int] = field(default_factory=dict)
    step_seconds: list[float] = field(default_factory=list)
    saved_bytes: int | None = None
    epoch_state: EpochState | None = None

    def state(self) -> dict[str, Any]:
        """Plain values and tensors, as a checkpoint holds them."""
        velocity = None if self.velocity is None else vars(self.velocity)
        epoch_state = None if self.epoch_state is None else self.epoch_state.state()
        return {**vars(self), "velocity": velocity, "epoch_state": epoch_state}

    @classmethod
    def of_state(cls, state: dict[str, Any], device: torch.device) -> Progress:
        """Rebuilds what `state` returned; an interrupted epoch continues on this device."""
        velocity, epoch_state = state["velocity"], state.get("epoch_state")
        return cls(
            **{
                **state,
                "velocity": None if velocity is None else VelocityState(**velocity),
                "epoch_state": None if epoch_state is None else EpochState.of_state(epoch_state, device),
            }
        )


@dataclass(frozen=True)
class Training:
    """What a run trains, on what, and who follows it.

    Args:
        config: resolved.
        network: the plain network, on the device.
        table: its neurons.
        data: the run's data set: its images are the network's inputs, on which velocities are measured.
        task: what the network learns, from which batches.
        device: where to compute.
        checkpoints: where the run's state is saved.
        trackers: called after every step, after every epoch and at the end; on the first rank alone.
        processes: that train it together.
        stop: checked after every step.
    """

    config: Config
    network: nn.Module
    table: NeuronTable
    data: Data
    task: Task[Any]
    device: torch.device
    checkpoints: Checkpoints
    trackers: Sequence[Tracker] = ()
    processes: ProcessGroup = SINGLE_PROCESS
    stop: Stop = field(default_factory=Stop)

    def allowance(self, policy: str) -> BudgetAllocator:
        """The run's budget on a step under a policy: the biases of an SU scheme train under SU alone."""
        return self._allowances[policy == "SU"]

    def check(self, policy: str) -> None:
        """Holds a policy against the network and the budget.

        Raises:
            UserError: SU lists that fit neither, or a budget below what always trains.
        """
        allowance = self.allowance(policy)
        if policy == "SU":
            stream = generator(self.config.manual_seed, "selection", 0)
            allowance.choose(policy, SelectionState(self.table, self.network, stream, self.scheme))
        assert allowance.limit >= 0

    def bias_layers(self, policy: str) -> tuple[str, ...]:
        """The layers whose bias trains whole under a policy."""
        return bias_layers(self.table, self.scheme) if policy == "SU" and self.scheme else ()

    @cached_property
    def _allowances(self) -> dict[bool, BudgetAllocator]:
        batch = min(self.config.data_provider.base_batch_size, self.data.counts["train"])
        return {
            policy == "SU": allowance_of(
                self.config, self.network, self.table, batch, self.bias_layers(policy), self.task
            )
            for policy in ("random", "SU")
        }

    @property
    def scheme(self) -> StaticScheme | None:
        """The lists of SU, if the configuration has them."""
        return StaticScheme.of_config(self.config.backward_config)

    @property
    def shared_batch(self) -> SyncBatchStats | None:
        """How the processes share a batch; none for a process alone."""
        if self.processes.count == 1:
            return None
        return SyncBatchStats(self.processes.sum_there, self.task.share)

    def policy(self, epoch: int) -> str:
        """The policy that chooses an epoch's neurons."""
        neq = self.config.NEq_config
        return neq.initialization if epoch == 0 else neq.neuron_selection


def allowance_of(
    config: Config,
    network: nn.Module,
    table: NeuronTable,
    batch: int,
    biases: Collection[str],
    task: Task[Any] | None = None,
) -> BudgetAllocator:
    """A configuration's budget on a step of its network.

    Args:
        config: resolved.
        network: the plain network.
        table: its neurons.
        batch: images of a step.
        biases: layers whose bias trains whole.
        task: that adds forward passes and parameters of its own; none: one forward pass a step.
    """
    neq, settings, size = config.NEq_config, config.run_config, config.data_provider.image_size
    assert size is not None, "image_size is resolved"
    model = CostModel(
        network,
        table,
        (batch, 3, size, size),
        neq.norm_mode,
        optimizer_kind(settings),
        settings.precision,
        biases,
        neq.saved_precision,
        **({} if task is None else task_cost(task)),
    )
    return BudgetAllocator(model, Budget(neq.budget_unit, neq.budget, neq.ratio))


def task_cost(task: Task[Any]) -> dict[str, int]:
    """What a task adds to a step's cost, as CostModel takes it."""
    extra = task.extra_parameters().values()
    return {
        "forwards": task.forwards,
        "extra_bytes": sum(parameter.nbytes for parameter in extra),
        "extra_saved_bytes": task.extra_saved_bytes,
    }


def choose_neurons(run: Training, progress: Progress, epoch: int) -> Allocation:
    """The neurons that an epoch updates; a static policy's first choice stays."""
    policy = run.policy(epoch)
    velocity = None if progress.velocity is None else progress.velocity.velocity
    stream = generator(run.config.manual_seed, "selection", epoch)
    state = SelectionState(run.table, run.network, stream, run.scheme, velocity)
    allowance = run.allowance(policy)
    if policy in STATIC and policy == progress.policy:
        assert progress.chosen is not None
        return allowance.choice(policy, state, progress.chosen)
    return allowance.choose(policy, state, run.config.NEq_config.cost_aware)


def make_plan(run: Training, policy: str, chosen: Tensor) -> Plan:
    """The plan of an epoch's neurons; under SU the biases of its scheme train too.

    Args:
        run: that is trained.
        policy: that they were chosen by.
        chosen: bool [N].
    """
    neq, selection = run.config.NEq_config, run.table.selection(chosen)
    biases = run.bias_layers(policy)
    shared = run.shared_batch if run.config.run_config.sync_batch_norm else None
    return Plan(run.network, run.table, selection, neq.norm_mode, biases, neq.saved_precision, shared)
