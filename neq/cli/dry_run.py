"""--dry-run: what a run would do, without doing it."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from torch import Tensor

from neq.cli.console import Console
from neq.config import to_yaml
from neq.errors import UserError
from neq.selection import policy_budget
from neq.tracking import RunRecord
from neq.training import Progress, Training, choose_neurons, make_plan, total_epochs


def describe(console: Console, run: Training, record: RunRecord, identity: dict[str, Any]) -> None:
    """Prints the resolved configuration, the network's cost, the budget and the first epoch's update.

    Args:
        console: where to print.
        run: what would be trained.
        record: where it would be recorded.
        identity: of the run.
    """
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
        f"run_dir: {record.folder} ({_state(record, identity)}); nothing is written",
    ]
    console.print("\n".join(lines), highlight=False, markup=False)
    console.print(_by_layer(run, chosen))


def _state(record: RunRecord, identity: dict[str, Any]) -> str:
    """What the run's folder holds."""
    try:
        record.check(identity, resume=False, overwrite=False)
    except UserError as error:
        return str(error)
    return "holds this run, finished" if record.is_finished() else "free"


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
