"""A training: what it trains and on what, and what it carries from one epoch to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from neq.backward import NamedState, Plan, SyncBatchStats, has_draws
from neq.budget import Allocation, Budget, BudgetAllocator, CostModel, StepSpec
from neq.budget.latency import Times
from neq.config import OBJECTIVES, POLICIES, Config, Policy
from neq.data import Data
from neq.networks.neurons import NeuronTable
from neq.selection import (
    CRITERIA,
    Importance,
    SelectionState,
    StaticScheme,
    VelocityState,
    batch_gradients,
    bias_layers,
)
from neq.tasks import Task
from neq.training.averages import Averages
from neq.training.checkpoint import Checkpoints
from neq.training.distributed.collectives import SINGLE_PROCESS, ProcessGroup
from neq.training.epoch_state import EpochState
from neq.training.forward import NetworkForward
from neq.training.importance import measure_importance
from neq.training.prefix_maps import PrefixMaps
from neq.training.schedule import total_epochs
from neq.training.step_times import StepTimes, device_latency
from neq.training.stopping import Stop
from neq.training.tracker import Tracker
from neq.utils.errors import UserError
from neq.utils.seeds import generator, seed_for

# What policies need measured, as progress carries it.
_MEASURED: dict[str, type] = {"velocity": VelocityState, "importance": Importance}
# The largest share of a run's epochs that comes before the policy's first choice, unless more are given.
_MOST_INITIAL = 3 / 8


@dataclass
class Progress:
    """What a training carries from one epoch to the next; a checkpoint is this, the network and the task.

    Args:
        epoch: the next one, or the one that is interrupted.
        policy: name of the one that chose the last epoch's neurons.
        chosen: the last epoch's neurons, bool [N]; none where the next epoch chooses anew.
        optimizer: the last epoch's optimizer state of the network's parameters, by name.
        task_optimizer: the same of the task's own parameters.
        velocity: under the velocity policy.
        importance: as it was measured last, under a policy that needs it.
        best: of the best epoch by validation: epoch, and its scores as `val_NAME` and `test_NAME` (see
            `best_scores`); and the highest test score of all epochs, by which nothing is chosen.
        budget_used_max: the most of its budget that an epoch has used.
        selected_parameters_max: the most parameters that an epoch has updated.
        trained_beside_max: the most values outside the budget that an epoch has trained, by kind.
        step_seconds: median step of each epoch, in seconds.
        saved_bytes: kept for backward by one step, measured once.
        base_lr: the learning rate that the last search has found; none without a search.
        rate_trials: of all searches, as `rate_search` makes them.
        averages: of the weights, under `ema_decay`.
        epoch_state: of the interrupted epoch, if one is. Then `optimizer` is the state after its last step;
            everything else is as it was before the epoch.
        step_settings: by key, those that the last steps were taken under in place of the run's own.
    """

    epoch: int = 0
    policy: str | None = None
    chosen: Tensor | None = None
    optimizer: NamedState = field(default_factory=dict)
    task_optimizer: NamedState = field(default_factory=dict)
    velocity: VelocityState | None = None
    importance: Importance | None = None
    best: dict[str, Any] = field(default_factory=dict)
    selected_parameters_max: int = 0
    budget_used_max: int = 0
    trained_beside_max: dict[str, int] = field(default_factory=dict)
    step_seconds: list[float] = field(default_factory=list)
    saved_bytes: int | None = None
    base_lr: float | None = None
    rate_trials: list[dict[str, Any]] = field(default_factory=list)
    averages: Averages | None = None
    epoch_state: EpochState | None = None
    step_settings: dict[str, Any] = field(default_factory=dict)

    def take_settings(self, settings: Mapping[str, Any]) -> None:
        """Takes further steps under these settings; under others, what the former chose is dropped.

        Args:
            settings: as of `step_settings`. An epoch that other ones interrupted begins anew.
        """
        if self.step_settings != settings:
            self.chosen = self.epoch_state = None
        self.step_settings = dict(settings)

    def state(self) -> dict[str, Any]:
        """Plain values and tensors, as a checkpoint holds them."""
        kept = {name: None if (each := vars(self)[name]) is None else vars(each) for name in _MEASURED}
        epoch_state = None if self.epoch_state is None else self.epoch_state.state()
        averages = None if self.averages is None else self.averages.state()
        return {**vars(self), **kept, "averages": averages, "epoch_state": epoch_state}

    @classmethod
    def of_state(cls, state: dict[str, Any], device: torch.device) -> Progress:
        """Rebuilds what `state` returned; an interrupted epoch continues on this device."""
        epoch_state = state.get("epoch_state")
        state = {"importance": None, **state}  # checkpoints of earlier versions have none
        averages = state.get("averages")
        kept = {name: kind(**state[name]) for name, kind in _MEASURED.items() if state[name] is not None}
        return cls(
            **{
                **state,
                **kept,
                "averages": None if averages is None else Averages.of_state(averages, device),
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
        checks: called between passes that are no steps: trials of learning rates, measuring importance; what
            they raise ends the run.
        step_times: by which a budget in time is filled.
        maps: of the images, as far as they are kept.
        notes: called with each line for the user.
        fingerprint: of the run's images, those that the task opened among them; None: their names identify
            them.
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
    checks: Sequence[Callable[[], None]] = ()
    step_times: StepTimes = field(default_factory=StepTimes)
    maps: PrefixMaps = field(default_factory=PrefixMaps)
    notes: Callable[[str], object] = lambda line: None
    fingerprint: str | None = None

    def allocator(self, policy: Policy) -> BudgetAllocator:
        """The run's budget on a step under a policy."""
        return self._allocators[policy.trains_biases]

    def check(self, policy: Policy) -> None:
        """Checks that a policy fits the network and the budget.

        Raises:
            UserError: lists that fit neither, a budget below what always trains, or nothing that trains.
        """
        allocator = self.allocator(policy)
        if not policy.chooses and OBJECTIVES[self.config.objective].trains:
            always = allocator.model.spec.trainable_slices(self.network, self.table, {})
            if not always and not self.task.extra_parameters():
                raise UserError(
                    f"nothing of {self.config.net_config.net_name} trains with neuron_selection "
                    f"{policy.name!r}: it has no norms; take another neuron_selection, or train_head true"
                )
        if policy.needs == "lists":
            stream = generator(self.config.manual_seed, "selection", 0)
            allocator.choose(policy, SelectionState(self.table, self.network, stream, self.scheme))
        assert allocator.limit >= 0

    def check_step(self) -> None:
        """Checks that the network can be cut into segments, and the task its batches, alike in every process.

        Raises:
            UserError: it cannot.
        """
        settings = self.config.run_config
        self.maps.check(self)
        if settings.checkpoint_cuts:
            model = self.allocator(self.main_policy).model
            model.spec.plan(model.network, self.table, {}, cuts=settings.checkpoint_cuts)
        layers = self.table.layers if settings.ema_decay is not None else ()
        if any(layer.kind.unit(self.network.get_submodule(layer.name)) is not None for layer in layers):
            raise UserError(
                f"ema_decay {settings.ema_decay} is not allowed: {self.config.net_config.net_name} has "
                "weights of codes, which have no average; leave it out"
            )
        images, group = settings.micro_batch_size, settings.ghost_batch_size
        if images is None:
            return
        batch, processes = self.step_spec().batch_size, self.processes.count
        if not self.task.has_micro_batches and self.parts != self.task.fixed_parts:
            raise UserError(
                f"micro_batch_size {images} is not allowed: {type(self.task).__name__} does not cut its "
                "batches; leave it out"
            )
        if self.parts > batch // processes:
            raise UserError(
                f"micro_batch_size {images} is not allowed: {processes} processes do not share a batch of "
                f"{batch} images evenly; take a multiple of {processes} as base_batch_size, or larger parts"
            )
        if group is not None and (images % group or batch % (images * processes)):
            raise UserError(
                f"micro_batch_size {images} is not allowed with ghost_batch_size {group} and {processes} "
                f"process(es) for a batch of {batch} images: it must be a multiple of {group} that divides "
                "each process' share"
            )

    @cached_property
    def draws_by_image(self) -> bool:
        """Whether the network drops values, which then depends on seed, epoch, step and image alone."""
        return has_draws(self.network)

    @cached_property
    def parts(self) -> int:
        """Micro-batches of a step, as many in every process."""
        return self.own_step(self.step_spec()).parts

    @cached_property
    def _allocators(self) -> dict[bool, BudgetAllocator]:
        """By whether the biases that a scheme lists train."""
        biases = bias_layers(self.table, self.scheme) if self.scheme else ()
        budget = Budget.of_config(self.config.NEq_config)
        specs = {trained: self.step_spec(biases if trained else ()) for trained in (False, True)}
        return {
            trained: BudgetAllocator(
                CostModel(self.network, self.table, spec), budget, partial(self._times, spec)
            )
            for trained, spec in specs.items()
        }

    def own_step(self, spec: StepSpec, images: int | None = None) -> StepSpec:
        """This process' part of a step.

        Args:
            spec: of all processes together.
            images: of a batch in this process; none: its share of the run's.
        """
        share = spec.with_batch_size(images or -(-spec.batch_size // self.processes.count))
        return replace(share, micro_batch=self.config.run_config.micro_batch_size)

    def _times(self, spec: StepSpec) -> Times:
        """The predicted times of this process' step."""
        model = CostModel(self.network, self.table, self.own_step(spec))
        latency = self.step_times.get(
            lambda: device_latency(model, self.device, self.config.memory), self.processes
        )
        return latency.times(model)

    def step_spec(self, biases: tuple[str, ...] = ()) -> StepSpec:
        """The step of all processes together.

        Args:
            biases: layers whose bias trains whole.
        """
        batch = min(self.config.data_provider.base_batch_size, self.data.counts["train"])
        passes = tuple(batch * batches for batches in self.task.passes(self.config))
        spec = StepSpec.of_config(self.config, passes, biases)
        extra = sum(parameter.nbytes for parameter in self.task.extra_parameters().values())
        images = self.config.run_config.micro_batch_size
        return replace(
            spec,
            micro_batch=None if images is None else images * self.processes.count,
            extra_bytes=extra,
            extra_saved_bytes=self.task.extra_saved_bytes,
            copies=spec.copies + self.task.copies,
        )

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

    @property
    def main_policy(self) -> Policy:
        """The policy of every epoch after the initial ones."""
        return POLICIES[self.config.NEq_config.neuron_selection]

    @cached_property
    def initial_epochs(self) -> int:
        """The epochs whose neurons the initialization chooses."""
        given, epochs = self.config.NEq_config.initial_epochs, total_epochs(self.config.run_config)
        enough = math.ceil(self.main_policy.initial_steps / self.task.steps_per_epoch)
        return min(given or max(1, min(enough, int(_MOST_INITIAL * epochs))), epochs)

    def policy(self, epoch: int) -> Policy:
        """The policy that chooses an epoch's neurons."""
        if epoch < self.initial_epochs:
            return POLICIES[self.config.NEq_config.initialization]
        return self.main_policy


def choose_neurons(run: Training, progress: Progress, epoch: int) -> Allocation:
    """The neurons that an epoch updates; a static policy's first choice stays."""
    policy = run.policy(epoch)
    allocator = run.allocator(policy)
    settings = run.config.NEq_config
    later = epoch - (run.initial_epochs if epoch >= run.initial_epochs else 1)
    is_kept = policy.name == progress.policy and progress.chosen is not None
    if is_kept and not _chooses_again(policy, settings.choose_every, later):
        assert progress.chosen is not None
        return allocator.keep(policy, progress.chosen)
    stream = generator(run.config.manual_seed, "selection", epoch)
    velocity = None if progress.velocity is None else progress.velocity.velocity
    gradients = measure_gradients(run, epoch) if policy.needs == "gradients" else None
    if policy.needs == "importance" and not (policy.measures_once and progress.importance):
        progress.importance = importance_of(run, epoch, settings.importance)
    state = SelectionState(
        run.table,
        run.network,
        stream,
        run.scheme,
        velocity,
        gradients,
        progress.importance,
        settings.layer_share,
    )
    return allocator.choose(policy, state, settings.cost_aware)


def _chooses_again(policy: Policy, every: int | None, later: int) -> bool:
    """Whether a policy that chose the last epoch's neurons chooses anew.

    Args:
        policy: of this epoch and of the last one.
        every: epochs between choices; none: as the policy does.
        later: epochs since the second epoch, or since the first one after the initial ones.
    """
    return not policy.is_static if every is None else later % every == 0


def importance_of(run: Training, epoch: int, criterion: str) -> Importance:
    """The importance of the run's neurons on an epoch's first batches, the same on all ranks."""
    settings, precision = run.config.NEq_config, run.config.run_config.precision

    def loss_of(plan: Plan, batch: Any) -> Tensor:
        for check in run.checks:
            check()
        return run.task.step(NetworkForward(plan, precision, run.shared_batch), batch).loss

    return measure_importance(
        run.network,
        run.allocator(run.main_policy),
        run.task,
        CRITERIA[criterion],
        (epoch, settings.importance_batches),
        seed_for(run.config.manual_seed, "importance", epoch),
        loss_of,
        run.processes,
    )


def measure_gradients(run: Training, epoch: int) -> dict[str, Tensor]:
    """Gradients of an epoch's first batch with respect to the selectable weights, the same on all ranks."""
    batch = next(run.task.batches(epoch, 0))
    precision = run.config.run_config.precision

    def loss_of(forward: Callable[..., Any]) -> Tensor:
        return run.task.step(NetworkForward(forward, precision, run.shared_batch), batch).loss

    found = batch_gradients(run.network, run.table, loss_of)
    return {name: run.processes.sum(gradient * run.task.share) for name, gradient in found.items()}


def make_plan(run: Training, policy: Policy, chosen: Tensor) -> Plan:
    """The plan of an epoch's neurons.

    Args:
        run: that is trained.
        policy: that chose them.
        chosen: bool [N].
    """
    shared = run.shared_batch if run.config.run_config.sync_batch_norm else None
    model, selection = run.allocator(policy).model, run.table.selection(chosen)
    return model.spec.plan(run.network, run.table, selection, shared, model.cuts(selection))
