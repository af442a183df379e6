"""A run: what it trains and on what, and what it carries from one epoch to the next."""

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
from neq.training.checkpoint import Checkpoints
from neq.training.distributed.collectives import SINGLE_PROCESS, ProcessGroup
from neq.training.epoch_state import EpochState
from neq.training.optimizer import optimizer_kind
from neq.training.stopping import Stop
from neq.training.tracker import Tracker
from neq.utils.seeds import generator


@dataclass
class Progress:
    """All that a run carries from one epoch to the next; a checkpoint is this and the network.

    Args:
        epoch: the next one, or the one that is under way.
        policy: that the last epoch's neurons were chosen by.
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
                self.config, self.network, self.table, batch, self.bias_layers(policy)
            )
            for policy in ("random", "SU")
        }

    @property
    def scheme(self) -> StaticScheme | None:
        """The lists of SU, if the configuration has them."""
        return StaticScheme.of_config(self.config.backward_config)

    def policy(self, epoch: int) -> str:
        """The policy that chooses an epoch's neurons."""
        neq = self.config.NEq_config
        return neq.initialization if epoch == 0 else neq.neuron_selection


def allowance_of(
    config: Config, network: nn.Module, table: NeuronTable, batch: int, biases: Collection[str]
) -> BudgetAllocator:
    """A configuration's budget on a step of its network.

    Args:
        config: resolved.
        network: the plain network.
        table: its neurons.
        batch: images of a step.
        biases: layers whose bias trains whole.
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
    )
    return BudgetAllocator(model, Budget(neq.budget_unit, neq.budget, neq.ratio))


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
    biases, batch = run.bias_layers(policy), None
    if run.processes.count > 1 and run.config.run_config.sync_batch_norm:
        batch = SyncBatchStats(run.processes.sum_there, run.data.share)
    return Plan(run.network, run.table, selection, neq.norm_mode, biases, neq.saved_precision, batch)
