"""The training loop: choose, train, measure, evaluate, record; once an epoch."""

from __future__ import annotations

import math
import statistics
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor

from neq.backward import Plan, carry_optimizer_state, optimizer_state
from neq.selection import VelocityState, previous_values, similarity
from neq.training.context import Progress, Training, choose_neurons, make_plan
from neq.training.epoch_state import EpochState
from neq.training.evaluation import Scores, cross_entropy, evaluate
from neq.training.metrics import score_metrics, selection_metrics
from neq.training.optimizer import make_optimizer
from neq.training.profiling import SavedBytes, StepClock, peak_memory
from neq.training.rank_state import own_of_all
from neq.training.schedule import learning_rate, total_epochs
from neq.training.stopping import Stopped
from neq.training.tracker import EpochReport
from neq.utils.seeds import seed_for


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


def train(run: Training, progress: Progress | None = None) -> dict[str, Any]:
    """Trains a run to its end.

    Args:
        run: what to train.
        progress: where it stands, as `restore` gives it; none starts afresh.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        TrainingDiverged: the loss is no longer a number; the last checkpoint stays good.
        Stopped: the run was asked to stop; it is saved where it stood.
    """
    progress = progress or Progress()
    for epoch in range(progress.epoch, total_epochs(run.config.run_config)):
        if asked := run.processes.largest(run.stop.number):
            raise Stopped(asked)
        try:
            is_best = _train_epoch(run, progress, epoch)
        except Stopped:
            _save(run, progress)
            raise
        _save(run, progress, is_best)
    summary = _summary(run, progress)
    for tracker in run.trackers:
        tracker.finish(summary)
    return summary


def _save(run: Training, progress: Progress, is_best: bool = False) -> None:
    """Saves where the run stands; in mid-epoch that is another place in every process."""
    state: dict[str, Any] = {"network": run.network.state_dict(), "progress": progress.state()}
    if progress.so_far is not None:
        state["own"] = own_of_all(run.network, progress.so_far, run.processes, run.data.share)
    run.checkpoints.save(state, is_best)


def _train_epoch(run: Training, progress: Progress, epoch: int) -> bool:
    """One epoch from choice to record; updates progress and says whether this epoch is the best so far.

    Raises:
        Stopped: the run was asked to stop; progress stands after a step of this epoch.
    """
    config, settings = run.config, run.config.run_config
    policy = run.policy(epoch)
    # An epoch that was left in its middle goes on from there.
    so_far = progress.so_far or EpochState.start(
        choose_neurons(run, progress, epoch), run.data.steps_per_epoch, run.device
    )
    choice = so_far.choice
    chosen = choice.chosen
    run.processes.check_same(f"the neurons chosen for epoch {epoch}", [chosen])
    plan = make_plan(run, policy, chosen)
    optimizer = make_optimizer(plan, settings)
    carry_optimizer_state(progress.optimizer, optimizer, plan)
    if run.main_policy.needs == "velocity" and so_far.before is None:
        so_far.before = previous_values(run.network, plan.parts)
    progress.so_far = so_far

    train_scores, lr = _train_steps(run, progress, so_far, plan, optimizer, epoch)

    velocity = progress.velocity
    if so_far.before is not None:
        images = run.data.velocity_images().to(run.device, memory_format=torch.channels_last)
        phi = similarity(run.network, run.table, images, so_far.before)
        phi = run.processes.mean(phi, len(images))
        velocity = (velocity or VelocityState.start(len(run.table))).after_epoch(
            phi, config.NEq_config.velocity_mu, config.NEq_config.velocity_rule
        )
    velocities = None if velocity is None else velocity.velocity
    learned = [velocities, *run.network.state_dict().values()]
    run.processes.check_same(f"the weights after epoch {epoch}", learned)
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
    # All of the epoch's work is done: from here on it is over.
    progress.epoch = epoch + 1
    progress.policy, progress.chosen = policy.name, chosen
    progress.velocity = velocity
    progress.so_far = None
    progress.step_seconds.append(statistics.median(so_far.seconds))
    if test is not None:
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
    progress.budget_used_max = max(progress.budget_used_max, choice.used)
    progress.selected_parameters_max = max(progress.selected_parameters_max, used)
    progress.trained_beside_max = {
        kind: max(count, progress.trained_beside_max.get(kind, 0)) for kind, count in beside.items()
    }
    metrics = {
        "epochs": epoch,
        **score_metrics(train_scores, validation, test, lr, progress.best),
        **selection_metrics(run.table, choice),
        "Trained beside the budget": beside,
        "step_seconds": progress.step_seconds[-1],
    }
    for tracker in run.trackers:
        tracker.epoch(EpochReport(epoch, metrics, chosen, velocities))
    return is_best


def _train_steps(
    run: Training,
    progress: Progress,
    so_far: EpochState,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> tuple[Scores, float]:
    """The steps of one epoch that are to come; gives the mean scores of all its batches and the last rate."""
    settings, steps, share = run.config.run_config, run.data.steps_per_epoch, run.data.share
    if so_far.step == 0:
        # Dropout draws from the global stream: seeded by epoch, so that a resumed run draws the same.
        other = () if run.processes.is_first else (run.processes.rank,)
        torch.manual_seed(seed_for(run.config.manual_seed, "dropout", epoch, *other))
    else:
        so_far.restore_random()
    clock = StepClock(run.device, so_far.seconds)
    for images, labels in run.data.train_batches(epoch, so_far.step):
        images = images.to(run.device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(run.device, non_blocking=True)
        lr = learning_rate(settings, epoch * steps + so_far.step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        measured = None
        if progress.saved_bytes is None and _shows_the_policy(run, epoch):
            weights = chain(run.network.parameters(), run.network.buffers(), plan.parameters())
            measured = SavedBytes(weights)
        with clock.step():
            loss, outputs = _forward(plan, images, labels, settings.precision, measured)
            loss.backward()
            run.processes.average_gradients(plan, share)
            optimizer.step()
            optimizer.zero_grad()
            plan.write_back()
        if measured is not None:
            progress.saved_bytes = run.processes.sum(measured.total)
        so_far.add(loss.detach(), outputs, labels)
        for tracker in run.trackers:
            tracker.step(epoch, so_far.step - 1, steps)
        # All processes save, or stop, after the same step, whichever of them is to. 1 is no signal's number
        # that is listened to: it says that a checkpoint is due.
        asked = run.stop.number or int(run.checkpoints.is_due(settings.checkpoint_minutes))
        asked = run.processes.largest(asked)
        if asked:
            _check_finite(run, so_far, plan, epoch)
            progress.optimizer = optimizer_state(optimizer, plan)
            if asked > 1:
                raise Stopped(asked)
            _save(run, progress)
    run.processes.average_statistics(run.network, share)
    losses = _check_finite(run, so_far, plan, epoch)
    progress.optimizer = optimizer_state(optimizer, plan)
    hits, images_seen = run.processes.sum(so_far.hits), run.processes.sum(so_far.images)
    lr = learning_rate(settings, epoch * steps + steps - 1, steps)
    return Scores(100 * int(hits) / images_seen, float(losses.mean())), lr


def _check_finite(run: Training, so_far: EpochState, plan: Plan, epoch: int) -> Tensor:
    """Makes sure that the network may be saved; gives the losses of all processes' steps, [steps]."""
    settings, steps = run.config.run_config, run.data.steps_per_epoch
    losses = run.processes.sum(so_far.losses * run.data.share)
    for step, value in enumerate(losses.tolist()):
        if not math.isfinite(value):
            rate = learning_rate(settings, epoch * steps + step, steps)
            raise TrainingDiverged(
                f"the loss is {value} in epoch {epoch}, step {step}, at learning rate {rate:.4g}; "
                "try a lower base_lr or a longer warm-up"
            )
    # A last step may spoil the weights, or its batch a running statistic, after a finite loss.
    values = chain(plan.parameters(), run.network.buffers())
    is_finite = torch.stack([tensor.isfinite().all() for tensor in values]).all()
    if run.processes.largest(int(not is_finite)):
        raise TrainingDiverged(
            f"a weight is no longer finite in epoch {epoch}, after step {so_far.step - 1}; "
            "try a lower base_lr"
        )
    return losses


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
    return cross_entropy(outputs, labels), outputs.detach()


def _shows_the_policy(run: Training, epoch: int) -> bool:
    """Whether an epoch's neurons are chosen as most epochs' are, not by the initialization."""
    return epoch > 0 or total_epochs(run.config.run_config) == 1


def _evaluate(run: Training, split: Literal["validation", "test"]) -> Scores:
    # Of several processes none may leave the others waiting.
    batches = run.data.eval_batches(split)
    if run.processes.count == 1:
        batches = run.stop.watch(batches)
    precision = run.config.run_config.precision
    return evaluate(run.network, batches, run.device, precision, run.processes)


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
        "budget": run.allocator(run.main_policy).limit,
        "budget_unit": neq.budget_unit,
        "budget_used_max": progress.budget_used_max,
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
        "peak_memory_bytes": run.processes.largest(memory),
        "peak_memory_kind": memory_kind,
        "device": str(run.device),
    }
