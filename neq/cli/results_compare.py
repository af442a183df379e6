"""`neq results compare`: what runs reached beside the published table."""

from __future__ import annotations

from pandas import DataFrame, isna
from rich import box
from rich.markup import escape
from rich.table import Table

from neq.cli.parsing import ResultsParser
from neq.results.frame import runs
from neq.results.grouping import groups
from neq.results.published import HEADERS, SOURCE, comparison, published_results
from neq.utils.console import Console

WIDEST = 240
DIFFERS = HEADERS[-1]


def command(arguments: list[str]) -> int:
    """Prints a row for each setting that the published table has a figure of; returns the exit code."""
    parser = ResultsParser(
        "compare",
        "Show the test top-1 of runs beside the published figure, where data set, network, policy and budget "
        f"match ({SOURCE}).",
    )
    options = parser.parse_args(arguments[1:])
    console = Console()
    rows = comparison(groups(runs(options.files, options.runs_dir, options.config_file)))
    if rows.empty:
        table = published_results()
        names = sorted({name for net in table.values() for row in net.rows for name in row.top1})
        budgets = ", ".join(
            f"{budget:,}" for budget in sorted({r.budget for n in table.values() for r in n.rows})
        )
        line = (
            f"nothing to compare: the published table has {', '.join(table)} on {', '.join(names)} "
            f"with budgets of {budgets} parameters"
        )
        console.lines(line)
        return 0
    Console(width=WIDEST).print(_table(rows))
    console.lines(f"\nTest top-1 in %, mean over seeds. Published: {SOURCE}.")
    return 0


def _table(rows: DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("network", "data set", "budget", "policy", "ours", "seeds", "published", "difference"):
        table.add_column(name, justify="left" if name in ("network", "data set", "policy") else "right")
    if any(rows[DIFFERS]):
        table.add_column("set otherwise (published)")
    for (
        net,
        data,
        budget,
        policy,
        _,
        ours,
        std,
        done,
        expected,
        theirs,
        difference,
        differs,
    ) in rows.itertuples(index=False):
        cells = [
            f"{net}",
            f"{data}",
            f"{budget:,}",
            f"{policy}",
            ("" if isna(ours) else f"{ours:.2f}") + ("" if isna(std) else f" ± {std:.2f}"),
            f"{done:.0f}/{expected:.0f}",
            f"{theirs:.2f}",
            "" if isna(difference) else f"{difference:+.2f}",
            escape(differs),
        ]
        table.add_row(*cells[: len(table.columns)])
    return table
