"""`neq results table`: the runs of sweep files as a table, on the terminal, as CSV or as Parquet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pandas import DataFrame
from rich import box
from rich.markup import escape
from rich.table import Table

from neq.cli.parsing import ResultsParser, check_new_file
from neq.results.columns import UNITS, rows_of
from neq.results.frame import runs, write_csv, write_parquet
from neq.results.grouping import groups, varying_settings
from neq.runs.metrics import cost_metrics, quality_metrics
from neq.utils.console import Console
from neq.utils.errors import UserError

WIDEST = 240


def command(arguments: list[str]) -> int:
    """Prints a row for each setting, and writes a row for each run; returns the exit code."""
    parser = ResultsParser(
        "table",
        "Print a table of the runs of sweeps, a row a setting with the mean and the standard deviation over "
        "its seeds. --csv and --parquet write every run as a row: its settings, seed, state, metrics, cost "
        "and folder.",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the runs as CSV")
    parser.add_argument("--parquet", metavar="FILE", help="write the runs as Parquet; needs pyarrow")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    options = parser.parse_args(arguments[1:])
    if options.parquet is not None and find_spec("pyarrow") is None:
        raise UserError("--parquet needs pyarrow, which is not installed; pip install 'neq[parquet]'")
    writers = {"--csv": (options.csv, write_csv), "--parquet": (options.parquet, write_parquet)}
    files = [(flag, Path(path).expanduser(), write) for flag, (path, write) in writers.items() if path]
    for flag, path, _ in files:
        check_new_file(flag, path, options.force)
    table = runs(options.files, options.runs_dir, options.config_file)
    Console(width=WIDEST).print(_table(groups(table)))
    for flag, path, write in files:
        try:
            write(table, path)
        except OSError as error:
            raise UserError(f"{flag} {path} cannot be written ({error.strerror})") from error
        Console().lines(f"{path}: {len(table)} runs")
    return 0


def _table(found: DataFrame) -> Table:
    """A row a setting: what it is, what it reached and what it cost."""
    texts = {"net_name": "network", "data_set": "data set", "neuron_selection": "policy"}
    if found["initialization"].nunique() > 1:
        texts["initialization"] = "initialization"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in (*texts.values(), "budget", *(settings := varying_settings(found)), "seeds"):
        table.add_column(heading, justify="right" if heading in ("budget", "seeds") else "left")
    shown = {**quality_metrics(), **cost_metrics()}
    for metric in shown.values():
        table.add_column(metric.header + UNITS[metric.unit][0], justify="right")
    for row in rows_of(found):
        cells = [str(row[name]) for name in texts]
        cells += [_amount(row.get("budget_amount"), str(row["budget_unit"]))]
        cells += [str(row.get(name, "")) for name in settings]
        cells += [f"{row['seeds_done']}/{row['seeds_expected']}"]
        for name, metric in shown.items():
            _, scale, _ = UNITS[metric.unit]
            mean, deviation = row.get(name), row.get(f"{name}_std")
            text = "" if mean is None else f"{float(mean) / scale:.4g}"
            cells.append(text + ("" if deviation is None else f" ± {float(deviation) / scale:.2g}"))
        table.add_row(*map(escape, cells))
    return table


def _amount(amount: object, unit: str) -> str:
    if not isinstance(amount, int | float):
        return ""
    shown = {"bytes": f"{amount / 2**20:,.4g} MiB", "time": f"{amount / 10**6:,.4g} ms"}
    return shown.get(unit, f"{amount:,.0f}")
