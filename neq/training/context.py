"""A run: what it trains and on what, and what it carries from one epoch to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from neq.backward import NamedState, Plan, SharedBatch
from neq.budget import Allocation, Budget, BudgetAllocator, CostModel, StepSpec
from neq.config import POLICIES, Config, Policy
from neq.data import Data
from neq.networks.neurons import NeuronTable
from neq.selection import SelectionState, StaticScheme, VelocityState, batch_gradients, bias_layers
from neq.training.checkpoint import Checkpoints
from neq.training.distributed.collectives import SINGLE_PROCESS, ProcessGroup
from neq.training.epoch_state import EpochState
from neq.training.evaluation import cross_entropy
from neq.training.stopping import Stop
from neq.training.tracker import Tracker
from neq.utils.seeds import generator


@dataclass
class Progress:
    """All that a run carries from one epoch to the next; a checkpoint is this and the network.

    Args:
        epoch: the next one, or the one that is under way.
        policy: name of the policy that chose the last epoch's neurons.
        chosen: the last epoch's neurons, bool [N].
        optimizer: the last epoch's optimizer state, by name.
        velocity: under the velocity policy.
        best: of the best epoch by validation: epoch, val_top1, val_loss, test_top1; and highest_test_top1 of
            all epochs, which nothing is chosen by.
        budget_used_max: the most of its budget that an epoch has used.
        selected_parameters_max: the most parameters that an epoch has updated.
        trained_beside_max: the most values outside the budget that an epoch has trained, by kind.
        step_seconds: median step of each epoch.
        saved_bytes: kept for backward by one step, measured once.
        so_far: of the epoch that is under way, if one is. Then `optimizer` is the state after its last step;
            everything else is as it was before the epoch.
    """

    epoch: int = 0
    policy: str | None = None
    chosen: Tensor | None = None
    optimizer: NamedState = field(default_factory=dict)
    velocity: VelocityState | None = None
    best: dict[str, Any] = field(default_factory=dict)
    selected_parameters_max: int = 0
    budget_used_max: int = 0
    trained_beside_max: dict[str, int] = field(default_factory=dict)
    step_seconds: list[float] = field(default_factory=list)
    saved_bytes: int | None = None
    so_far: EpochState | None = None

    def state(self) -> dict[str, Any]:
        """As plain values and tensors."""
        velocity = None if self.velocity is None else vars(self.velocity)
        so_far = None if self.so_far is None else self.so_far.state()
        return {**vars(self), "velocity": velocity, "so_far": so_far}

    @classmethod
    def of_state(cls, state: dict[str, Any], device: torch.device) -> Progress:
        """From what `state` gave; an epoch that is under way goes on on this device."""
        velocity, so_far = state["velocity"], state.get("so_far")
        return cls(
            **{
                **state,
                "velocity": None if velocity is None else VelocityState(**velocity),
                "so_far": None if so_far is None else EpochState.of_state(so_far, device),
            }
        )


@dataclass(frozen=True)
class Training:
    """What a run trains, on what, and who follows it.

    Args:
        config: resolved.
        network: the plain network, on the device.
        table: its neurons.
        data: splits and batches.
        device: where to compute.
        checkpoints: where the run's state is kept.
        trackers: told of every step, every epoch and the end; of several processes' in the first alone.
        processes: that train it together.
        stop: asked after every step whether to go on.
    """

    config: Config
    network: nn.Module
    table: NeuronTable
    data: Data
    device: torch.device
    checkpoints: Checkpoints
    trackers: Sequence[Tracker] = ()
    processes: ProcessGroup = SINGLE_PROCESS
    stop: Stop = field(default_factory=Stop)

    def allocator(self, policy: Policy) -> BudgetAllocator:
        """The run's budget on a step under a policy."""
        return self._allocators[policy.trains_biases]

    def check(self, policy: Policy) -> None:
        """Checks that a policy fits the network and the budget.

        Raises:
            UserError: lists that fit neither, or a budget below what always trains.
        """
        allocator = self.allocator(policy)
        if policy.needs == "lists":
            stream = generator(self.config.manual_seed, "selection", 0)
            allocator.choose(policy, SelectionState(self.table, self.network, stream, self.scheme))
        assert allocator.limit >= 0

    @cached_property
    def _allocators(self) -> dict[bool, BudgetAllocator]:
        """By whether the biases that a scheme lists train too."""
        batch = min(self.config.data_provider.base_batch_size, self.data.counts["train"])
        budget = Budget.of_config(self.config.NEq_config)
        biases = bias_layers(self.table, self.scheme) if self.scheme else ()
        return {
            trained: BudgetAllocator(
                CostModel(
                    self.network,
                    self.table,
                    StepSpec.of_config(self.config, (batch,), biases if trained else ()),
                ),
                budget,
            )
            for trained in (False, True)
        }

    @property
    def scheme(self) -> StaticScheme | None:
        """The lists of SU, if the configuration has them."""
        return StaticScheme.of_config(self.config.backward_config)

    @property
    def main_policy(self) -> Policy:
        """The policy of every epoch but the first."""
        return POLICIES[self.config.NEq_config.neuron_selection]

    def policy(self, epoch: int) -> Policy:
        """The policy that chooses an epoch's neurons."""
        return POLICIES[self.config.NEq_config.initialization] if epoch == 0 else self.main_policy


def choose_neurons(run: Training, progress: Progress, epoch: int) -> Allocation:
    """The neurons that an epoch updates; a static policy's first choice stays."""
    policy = run.policy(epoch)
    allocator = run.allocator(policy)
    if policy.is_static and policy.name == progress.policy:
        assert progress.chosen is not None
        return allocator.keep(policy, progress.chosen)
    stream = generator(run.config.manual_seed, "selection", epoch)
    velocity = None if progress.velocity is None else progress.velocity.velocity
    gradients = _gradients(run, epoch) if policy.needs == "gradients" else None
    state = SelectionState(run.table, run.network, stream, run.scheme, velocity, gradients)
    return allocator.choose(policy, state, run.config.NEq_config.cost_aware)


def _gradients(run: Training, epoch: int) -> dict[str, Tensor]:
    """Gradients of an epoch's first batch, the same in all processes."""
    images, labels = next(run.data.train_batches(epoch))
    images = images.to(run.device, memory_format=torch.channels_last)
    labels = labels.to(run.device)
    half = run.config.run_config.precision == "bf16"

    def loss_of(forward: Callable[..., Any]) -> Tensor:
        with torch.autocast(run.device.type, torch.bfloat16, enabled=half):
            outputs = forward(images)
        return cross_entropy(outputs, labels)

    found = batch_gradients(run.network, run.table, loss_of)
    return {name: run.processes.sum(gradient * run.data.share) for name, gradient in found.items()}


def make_plan(run: Training, policy: Policy, chosen: Tensor) -> Plan:
    """The plan of an epoch's neurons.

    Args:
        run: that is trained.
        policy: that they were chosen by.
        chosen: bool [N].
    """
    batch = None
    if run.processes.count > 1 and run.config.run_config.sync_batch_norm:
        batch = SharedBatch(run.processes.sum_there, run.data.share)
    spec = run.allocator(policy).model.spec
    return spec.plan(run.network, run.table, run.table.selection(chosen), batch)
