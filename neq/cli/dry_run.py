"""--dry-run: what a run would do, without doing it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor

from neq.config import to_yaml
from neq.selection import policy_budget
from neq.training import Progress, Training, choose_neurons, make_plan, total_epochs


def describe(console: Console, run: Training, folder: Path) -> None:
    """Prints the resolved configuration, the network's cost, the budget and the first epoch's update."""
    table, epochs = run.table, total_epochs(run.config.run_config)
    policy = run.policy(0)
    chosen = choose_neurons(run, Progress(), 0)
    plan = make_plan(run, policy, chosen)
    used = int(table.parameters[chosen].sum())
    trained = plan.trained_values()
    also = ", ".join(f"{count:,} values of {kind}" for kind, count in trained.items() if kind != "weights")
    budget = policy_budget(policy, table, run.scheme, run.budget)
    counts = ", ".join(f"{count:,} {name}" for name, count in run.data.counts.items())
    lines = [
        to_yaml(run.config).rstrip(),
        "",
        f"images: {counts}; {run.data.steps_per_epoch} steps an epoch, {epochs} epochs",
        f"network: {len(table):,} selectable neurons in {len(table.layers)} layers, "
        f"{table.total_parameters:,} parameters, {table.total_macs:,} MACs an image forward; "
        f"head {table.head} outside",
        f"budget: {run.budget:,} parameters an epoch",
        f"epoch 0 ({policy}) would update {int(chosen.sum()):,} neurons with {used:,} of {budget:,} "
        f"parameters, {100 * used / table.total_parameters:.2f} % of all;",
        f"  beside them train {also}",
        f"run_dir: {folder} (nothing is written)",
    ]
    console.print("\n".join(lines), highlight=False, markup=False)
    console.print(_by_layer(run, chosen))


def _by_layer(run: Training, chosen: Tensor) -> Table:
    """The first epoch's update by layer."""
    table = Table()
    table.add_column("layer", no_wrap=True)
    for name in ("neurons", "parameters each", "MACs each", "chosen", "updated parameters"):
        table.add_column(name, justify="right")
    for layer in run.table.layers:
        count = int(chosen[run.table.slice_of(layer.name)].sum())
        numbers = (layer.neurons, layer.parameters, layer.macs, count, count * layer.parameters)
        table.add_row(layer.name, *(f"{number:,}" for number in numbers))
    return table
