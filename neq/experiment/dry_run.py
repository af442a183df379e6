"""The dry run: what a run would do, as text and a table."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from neq.budget import amount_shown, marginal_costs
from neq.config import Policy, to_yaml
from neq.experiment.memory_report import predicted_line
from neq.runs import RunRecord
from neq.training import Progress, Training, choose_neurons, make_plan, total_epochs
from neq.training.step_times import step_time_line
from neq.utils.console import figures_table, short
from neq.utils.errors import UserError


def describe(run: Training, record: RunRecord, identity: dict[str, Any]) -> list[RenderableType]:
    """The resolved configuration, the network's cost, the budget, and the first epoch's update by layer.

    Args:
        run: what would be trained.
        record: where it would be recorded.
        identity: of the run.
    """
    table, epochs = run.table, total_epochs(run.config.run_config)
    policy = run.policy(0)
    choice = choose_neurons(run, Progress(), 0)
    chosen = choice.chosen
    plan = make_plan(run, policy, chosen)
    updated = int(table.parameters[chosen].sum())
    cost = run.allocator(policy).model.step(table.selection(chosen))
    trained = plan.trained_values()
    also = ", ".join(f"{count:,} values of {kind}" for kind, count in trained.items() if kind != "weights")
    counts = ", ".join(f"{count:,} {name}" for name, count in run.data.counts.items())
    lines = [
        to_yaml(run.config).rstrip(),
        "",
        f"images: {counts}; {run.task.steps_per_epoch} steps an epoch, {epochs} epochs",
        f"network: {len(table):,} selectable neurons in {len(table.layers)} layers, "
        f"{table.total_parameters:,} parameters, {table.total_macs:,} MACs an image forward; "
        f"head {table.head} outside",
        f"budget: {amount_shown(choice.limit, choice.unit)} an epoch",
        f"epoch 0 ({policy.name}) would use {amount_shown(choice.used, choice.unit)} of it "
        f"for {int(chosen.sum()):,} neurons with {updated:,} parameters, "
        f"{100 * updated / table.total_parameters:.2f} % of all;",
        f"  beside them train {also};",
        f"  a step takes {cost.backward_macs:,} MACs backward and {cost.training_bytes / 2**20:,.1f} MiB: "
        f"{cost.saved_bytes / 2**20:,.1f} kept for backward, "
        f"{cost.gradient_bytes / 2**20:,.1f} of gradients, "
        f"{cost.optimizer_bytes / 2**20:,.1f} of optimizer state",
        *_step_time(run, policy),
        predicted_line(run),
        f"run_dir: {record.folder} ({_state(record, identity)}); nothing is written",
    ]
    return [Text("\n".join(lines)), _by_layer(run, policy, chosen)]


def _step_time(run: Training, policy: Policy) -> list[str]:
    latency = run.step_times.latency
    return [] if latency is None else [step_time_line(run.allocator(policy), latency)]


def _state(record: RunRecord, identity: dict[str, Any]) -> str:
    """The state of the run's folder."""
    try:
        record.check(identity, resume=False, overwrite=False)
    except UserError as error:
        return str(error)
    return "holds this run, finished" if record.is_finished() else "free"


def _by_layer(run: Training, policy: Policy, chosen: torch.Tensor) -> Table:
    """The first epoch's update by layer, and the cost of choosing a neuron there."""
    bytes_of = marginal_costs(run.allocator(policy).model, "bytes")
    headings = ("neurons", "weights each", "MACs each", "bytes each", "bytes to open", "chosen", "updated")
    table = figures_table("layer", headings)
    for number, layer in enumerate(run.table.layers):
        place = run.table.slice_of(layer.name)
        count = int(chosen[place].sum())
        memory = (int(bytes_of.neuron[place.start]), int(bytes_of.opening[number]))
        numbers = (layer.neurons, layer.parameters, layer.macs, *memory, count, count * layer.parameters)
        table.add_row(layer.name, *map(short, numbers))
    return table
