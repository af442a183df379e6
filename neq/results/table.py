"""The table at the end of a run."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from neq.budget import amount_shown
from neq.utils.errors import UserError


def summary_table(summary: dict[str, Any], images: str | None = None) -> Table:
    """What a run reached, and at what cost.

    Args:
        summary: as in summary.json.
        images: what its title calls them; none: the name of the data set.

    Raises:
        UserError: something in it is missing, or is not what a run writes.
    """
    try:
        return _table(summary, images or summary["dataset"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"summary.json is damaged ({type(error).__name__}: {error}); train again with --overwrite"
        ) from error


def _table(summary: dict[str, Any], images: str) -> Table:
    selected, selectable = summary["selected_parameters_max"], summary["selectable_parameters"]
    beside = ", ".join(f"{count:,} {kind}" for kind, count in summary["trained_beside_max"].items())
    validation = summary["val_top1"]
    blocks = [
        {
            "best epoch": f"{summary['best_epoch']} (of {summary['epochs']}, from 0)",
            "validation top-1": "none" if validation is None else f"{validation:.2f} %",
            "test top-1 of that epoch": f"{summary['test_top1']:.2f} %",
            "policy (first epoch)": f"{summary['neuron_selection']} ({summary['initialization']})",
        },
        {
            "budget": amount_shown(summary["budget"], summary["budget_unit"]),
            "most of it used in an epoch": amount_shown(summary["budget_used_max"], summary["budget_unit"]),
            "most parameters updated in an epoch": f"{selected:,}",
            "frozen share": f"{100 * (1 - selected / selectable):.2f} % of {selectable:,}",
            "trained beside the budget": beside,
        },
        {
            "seconds per step": f"{summary['step_seconds']:.4f}",
            "saved for backward": _bytes(summary["saved_bytes"]),
            f"peak memory, {summary['peak_memory_kind']}": _bytes(summary["peak_memory_bytes"]),
        },
    ]
    if summary.get("skipped_images"):
        blocks.append({"images left out": f"{summary['skipped_images']:,}, unreadable"})
    title = f"{summary['net_name']} on {images}, seed {summary['seed']}"
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for block in blocks:
        table.add_section()
        for what, value in block.items():
            table.add_row(what, value)
    return table


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
