"""`neq results compare`: what runs reached beside the published table."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from neq.cli.results_parser import ResultsParser
from neq.results.frame import runs
from neq.results.grouping import groups
from neq.results.published import SOURCE, Comparison, compare, published_results
from neq.utils.console import Console

WIDEST = 240


def command(arguments: list[str]) -> int:
    """Prints a row for each setting that the published table has a figure of; returns the exit code."""
    parser = ResultsParser(
        "compare",
        "Show the test top-1 of runs beside the published figure, where data set, network, policy and budget "
        f"match ({SOURCE}).",
    )
    options = parser.parse_args(arguments[1:])
    console = Console()
    rows = compare(groups(runs(options.files, options.runs_dir, options.config_file)))
    if not rows:
        table = published_results()
        names = sorted({name for net in table.values() for row in net.rows for name in row.top1})
        budgets = ", ".join(
            f"{budget:,}" for budget in sorted({r.budget for n in table.values() for r in n.rows})
        )
        line = (
            f"nothing to compare: the published table has {', '.join(table)} on {', '.join(names)} "
            f"with budgets of {budgets} parameters"
        )
        console.print(line, highlight=False, markup=False)
        return 0
    Console(width=WIDEST).print(_table(rows))
    console.print(f"\nTest top-1 in %, mean over seeds. Published: {SOURCE}.", highlight=False, markup=False)
    return 0


def _table(rows: list[Comparison]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("network")
    table.add_column("data set")
    table.add_column("budget", justify="right")
    table.add_column("policy")
    for name in ("ours", "seeds", "published", "difference"):
        table.add_column(name, justify="right")
    if any(one.differs for one in rows):
        table.add_column("set otherwise (published)")
    for one in rows:
        ours = "" if one.ours is None else f"{one.ours.mean:.2f}"
        spread = "" if one.deviation is None else f" ± {one.deviation:.2f}"
        count = 0 if one.ours is None else one.ours.count
        cells = [
            str(one.config["net_name"]),
            str(one.config["dataset"]),
            f"{one.row.budget:,}",
            one.row.neuron_selection,
            f"{ours}{spread}",
            f"{count}/{one.seeds_expected}",
            f"{one.theirs:.2f}",
            "" if one.difference is None else f"{one.difference:+.2f}",
        ]
        if len(table.columns) > len(cells):
            cells.append(escape(", ".join(one.differs)))
        table.add_row(*cells)
    return table
