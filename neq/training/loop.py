"""The training loop: choose, train, measure, evaluate, record; once an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neq.budget import budget_amount
from neq.config import Config
from neq.data import Data
from neq.neurons import NeuronTable
from neq.seeds import generator, seed_for
from neq.selection import (
    STATIC,
    SelectionState,
    StaticScheme,
    VelocityState,
    bias_layers,
    choose,
    policy_budget,
    previous_values,
    similarity,
)
from neq.selective import NamedState, Plan, carry_optimizer_state, optimizer_state
from neq.training.checkpoint import Checkpoints
from neq.training.evaluation import Scores, evaluate
from neq.training.measure import SavedBytes, StepClock, peak_memory
from neq.training.metrics import score_metrics, selection_metrics
from neq.training.optimizer import make_optimizer
from neq.training.schedule import learning_rate, total_epochs
from neq.training.tracker import EpochReport, Tracker


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass
class Progress:
    """All that a run carries from one epoch to the next; a checkpoint is this and the network.

    Args:
        epoch: the next one.
        policy: that the last epoch's neurons were chosen by.
        chosen: the last epoch's neurons, bool [N].
        optimizer: the last epoch's optimizer state, by name.
        velocity: under the velocity policy.
        best: of the best epoch by validation: epoch, val_top1, val_loss, test_top1; and highest_test_top1 of
            all epochs, which nothing is chosen by.
        selected_parameters_max: the most parameters that an epoch has updated.
        trained_beside_max: the most values outside the budget that an epoch has trained, by kind.
        step_seconds: median step of each epoch.
        saved_bytes: kept for backward by one step, measured once.
    """

    epoch: int = 0
    policy: str | None = None
    chosen: Tensor | None = None
    optimizer: NamedState = field(default_factory=dict)
    velocity: VelocityState | None = None
    best: dict[str, Any] = field(default_factory=dict)
    selected_parameters_max: int = 0
    trained_beside_max: dict[str, int] = field(default_factory=dict)
    step_seconds: list[float] = field(default_factory=list)
    saved_bytes: int | None = None

    def state(self) -> dict[str, Any]:
        """As plain values and tensors."""
        velocity = None if self.velocity is None else vars(self.velocity)
        return {**vars(self), "velocity": velocity}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Progress:
        """From what `state` gave."""
        velocity = state["velocity"]
        return cls(**{**state, "velocity": None if velocity is None else VelocityState(**velocity)})


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
        trackers: told of every step, every epoch and the end.
    """

    config: Config
    network: nn.Module
    table: NeuronTable
    data: Data
    device: torch.device
    checkpoints: Checkpoints
    trackers: Sequence[Tracker] = ()

    @property
    def budget(self) -> int:
        """The run's budget, in parameters."""
        neq = self.config.NEq_config
        return budget_amount(self.table.total_parameters, neq.ratio, neq.budget)

    @property
    def scheme(self) -> StaticScheme | None:
        """The lists of SU, if the configuration has them."""
        return StaticScheme.of_config(self.config.backward_config)

    def policy(self, epoch: int) -> str:
        """The policy that chooses an epoch's neurons."""
        neq = self.config.NEq_config
        return neq.initialization if epoch == 0 else neq.neuron_selection


def train(run: Training, resumed: dict[str, Any] | None = None) -> dict[str, Any]:
    """Trains a run to its end.

    Args:
        run: what to train.
        resumed: the checkpoint to go on from; none starts afresh.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        TrainingDiverged: the loss is no longer a number; the last checkpoint stays good.
    """
    progress = Progress()
    if resumed is not None:
        run.network.load_state_dict(resumed["network"])
        progress = Progress.of_state(resumed["progress"])
    for epoch in range(progress.epoch, total_epochs(run.config.run_config)):
        is_best = _train_epoch(run, progress, epoch)
        run.checkpoints.save({"network": run.network.state_dict(), "progress": progress.state()}, is_best)
    summary = _summary(run, progress)
    for tracker in run.trackers:
        tracker.finish(summary)
    return summary


def choose_neurons(run: Training, progress: Progress, epoch: int) -> Tensor:
    """The neurons that an epoch updates, bool [N]; a static policy's first choice stays."""
    policy = run.policy(epoch)
    if policy in STATIC and policy == progress.policy:
        assert progress.chosen is not None
        return progress.chosen
    velocity = None if progress.velocity is None else progress.velocity.velocity
    stream = generator(run.config.manual_seed, "selection", epoch)
    state = SelectionState(run.table, run.network, stream, run.scheme, velocity)
    return choose(policy, state, run.budget)


def make_plan(run: Training, policy: str, chosen: Tensor) -> Plan:
    """The plan of an epoch's neurons; under SU the biases of its scheme train too."""
    biases = bias_layers(run.table, run.scheme) if policy == "SU" and run.scheme else ()
    return Plan(run.network, run.table, run.table.selection(chosen), run.config.NEq_config.norm_mode, biases)


def _train_epoch(run: Training, progress: Progress, epoch: int) -> bool:
    """One epoch from choice to record; updates progress and says whether this epoch is the best so far."""
    config, settings = run.config, run.config.run_config
    policy = run.policy(epoch)
    chosen = choose_neurons(run, progress, epoch)
    plan = make_plan(run, policy, chosen)
    optimizer = make_optimizer(plan, settings)
    carry_optimizer_state(progress.optimizer, optimizer, plan)
    measures_velocity = config.NEq_config.neuron_selection == "velocity"
    if measures_velocity:
        before = previous_values(run.network, plan.parts)

    train_scores, lr = _train_steps(run, progress, plan, optimizer, epoch)

    if measures_velocity:
        images = run.data.velocity_images().to(run.device, memory_format=torch.channels_last)
        phi = similarity(run.network, run.table, images, before)
        velocity = progress.velocity or VelocityState.start(len(run.table))
        progress.velocity = velocity.after_epoch(
            phi, config.NEq_config.velocity_mu, config.NEq_config.velocity_rule
        )
    progress.epoch = epoch + 1
    progress.policy, progress.chosen = policy, chosen
    progress.optimizer = optimizer_state(optimizer, plan)

    validation = _evaluate(run, "validation") if config.data_provider.use_validation else None
    if validation is not None and not math.isfinite(validation.loss):
        raise TrainingDiverged(
            f"the validation loss is {validation.loss} after epoch {epoch}; try a lower base_lr"
        )
    is_last = epoch + 1 == total_epochs(settings)
    # Without validation nothing is chosen by accuracy: the last epoch is the one to keep.
    is_best = is_last if validation is None else validation.top1 > progress.best.get("val_top1", -1.0)
    test = None
    if is_best or is_last or (epoch + 1) % settings.test_per_epochs == 0:
        test = _evaluate(run, "test")
        highest = max(test.top1, progress.best.get("highest_test_top1", 0.0))
        progress.best = {**progress.best, "highest_test_top1": highest}
        if is_best:
            progress.best |= {
                "epoch": epoch,
                "val_top1": None if validation is None else validation.top1,
                "val_loss": None if validation is None else validation.loss,
                "test_top1": test.top1,
            }

    beside = plan.trained_values()
    used = beside.pop("weights")
    progress.selected_parameters_max = max(progress.selected_parameters_max, used)
    progress.trained_beside_max = {
        kind: max(count, progress.trained_beside_max.get(kind, 0)) for kind, count in beside.items()
    }
    metrics = {
        "epochs": epoch,
        **score_metrics(train_scores, validation, test, lr, progress.best),
        **selection_metrics(run.table, chosen, policy_budget(policy, run.table, run.scheme, run.budget)),
        "Trained beside the budget": beside,
        "step_seconds": progress.step_seconds[-1],
    }
    velocities = None if progress.velocity is None else progress.velocity.velocity
    for tracker in run.trackers:
        tracker.epoch(EpochReport(epoch, metrics, chosen, velocities))
    return is_best


def _train_steps(
    run: Training, progress: Progress, plan: Plan, optimizer: torch.optim.Optimizer, epoch: int
) -> tuple[Scores, float]:
    """The steps of one epoch; gives the mean scores of its batches and the last learning rate."""
    settings, steps = run.config.run_config, run.data.steps_per_epoch
    # Dropout draws from the global stream: seeded by epoch, so that a resumed run draws the same.
    torch.manual_seed(seed_for(run.config.manual_seed, "dropout", epoch))
    losses = torch.zeros(steps, device=run.device)
    hits, images_seen = torch.zeros((), dtype=torch.int64, device=run.device), 0
    clock = StepClock(run.device)
    lr = 0.0
    for step, (images, labels) in enumerate(run.data.train_batches(epoch)):
        images = images.to(run.device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(run.device, non_blocking=True)
        lr = learning_rate(settings, epoch * steps + step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        measured = None
        if progress.saved_bytes is None and _shows_the_policy(run, epoch):
            weights = chain(run.network.parameters(), run.network.buffers(), plan.parameters())
            measured = SavedBytes(weights)
        with clock.step():
            loss, outputs = _forward(plan, images, labels, settings.precision, measured)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            plan.write_back()
        if measured is not None:
            progress.saved_bytes = measured.total
        losses[step] = loss.detach()
        hits += (outputs.argmax(1) == labels).sum()
        images_seen += len(labels)
        for tracker in run.trackers:
            tracker.step(epoch, step, steps)
    for step, value in enumerate(losses.tolist()):
        if not math.isfinite(value):
            rate = learning_rate(settings, epoch * steps + step, steps)
            raise TrainingDiverged(
                f"the loss is {value} in epoch {epoch}, step {step}, at learning rate {rate:.4g}; "
                "try a lower base_lr or a longer warm-up"
            )
    # A last step may spoil the weights after a finite loss: such a network must not be saved.
    if not torch.stack([parameter.isfinite().all() for parameter in plan.parameters()]).all():
        raise TrainingDiverged(f"a weight is no longer finite after epoch {epoch}; try a lower base_lr")
    progress.step_seconds.append(clock.median)
    return Scores(100 * int(hits) / images_seen, float(losses.mean())), lr


def _forward(
    plan: Plan, images: Tensor, labels: Tensor, precision: str, measured: SavedBytes | None
) -> tuple[Tensor, Tensor]:
    """Loss and outputs of one batch."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        if measured is None:
            outputs = plan(images)
        else:
            with measured.counting():
                outputs = plan(images)
    return F.cross_entropy(outputs.float(), labels), outputs.detach()


def _shows_the_policy(run: Training, epoch: int) -> bool:
    """Whether an epoch's neurons are chosen as most epochs' are, not by the initialization."""
    return epoch > 0 or total_epochs(run.config.run_config) == 1


def _evaluate(run: Training, split: Literal["validation", "test"]) -> Scores:
    return evaluate(run.network, run.data.eval_batches(split), run.device, run.config.run_config.precision)


def _summary(run: Training, progress: Progress) -> dict[str, Any]:
    """What summary.json says: the run, its result, its cost."""
    config, neq = run.config, run.config.NEq_config
    memory, memory_kind = peak_memory(run.device)
    return {
        "dataset": config.data_provider.dataset,
        "skipped_images": len(run.data.skipped),
        "net_name": config.net_config.net_name,
        "neuron_selection": neq.neuron_selection,
        "initialization": neq.initialization,
        "scheme": neq.scheme,
        "budget": run.budget,
        "seed": config.manual_seed,
        "norm_mode": neq.norm_mode,
        "epochs": progress.epoch,
        "best_epoch": progress.best["epoch"],
        "val_top1": progress.best["val_top1"],
        "val_loss": progress.best["val_loss"],
        "test_top1": progress.best["test_top1"],
        "selected_parameters_max": progress.selected_parameters_max,
        "trained_beside_max": progress.trained_beside_max,
        "selectable_parameters": run.table.total_parameters,
        "step_seconds": sorted(progress.step_seconds)[len(progress.step_seconds) // 2],
        "saved_bytes": progress.saved_bytes,
        "peak_memory_bytes": memory,
        "peak_memory_kind": memory_kind,
        "device": str(run.device),
    }
