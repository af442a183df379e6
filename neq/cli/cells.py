"""`neq cells`: the cells of a sweep file and the states of their runs; nothing is run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from neq.cli.parsing import Parser
from neq.sweeps import Cell, Choice, Parameter, Sweep, read_cells
from neq.sweeps.cells import varying
from neq.sweeps.sweep_file import MACROS_OF_VALUES
from neq.utils.console import Console

WIDEST = 240


def command(arguments: list[str]) -> int:
    """Prints the cells of a sweep; returns the exit code.

    Args:
        arguments: "cells", then the path of one sweep file, options.
    """
    parser = Parser(
        prog="neq cells",
        description="List the cells of a sweep file (W&B's own format): what varies, the folder of each "
        "cell's run, and whether it is done, unfinished or waiting. Nothing is run.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="as policies/test_policy.yaml")
    parser.add_config_file()
    parser.add_runs_dir()
    options = parser.parse_args(arguments[1:])
    console, (sweep, found) = Console(width=WIDEST), read_cells(options.file, options.config_file)
    console.lines(_headline(sweep, len(found)))
    if sweep.method == "grid":
        _list(console, sweep, found, options.runs_dir)
    else:
        console.print(_space(sweep))
    return 0


def _headline(sweep: Sweep, count: int) -> str:
    """The method, size and metric of the sweep, and the values that all cells share."""
    cap = f", at most {sweep.run_cap} runs (run_cap)" if sweep.run_cap else ""
    size = f"{count} cell{'' if count == 1 else 's'}"
    if sweep.method != "grid":
        size = "each run drawn when it starts"
    lines = [f"{sweep.name or 'sweep'}: {sweep.method}, {size}{cap}"]
    if sweep.metric is not None:
        lines.append(f"metric: {sweep.metric.name}, {sweep.metric.goal}")
    if sweep.early_terminate is not None:
        lines.append(f"early_terminate: hyperband, eta {sweep.early_terminate.eta:g}")
    fixed = [
        f"{name} {_plain(parameter.values[0])}"
        for name, parameter in sorted(sweep.parameters.items())
        if isinstance(parameter, Choice) and len(parameter.values) == 1
    ]
    if fixed:
        lines.append(f"in every run: {', '.join(fixed)}")
    return "\n".join([*lines, *base_lines(sweep)])


def base_lines(sweep: Sweep) -> list[str]:
    """What the cells start from, where the experiment has a configuration of its own for them."""
    base = sweep.experiment().base
    if not base:
        return []
    line = f"settings that the sweep does not give: those of configuration {base}"
    if sweep.command is not None and not sweep.flags and not set(MACROS_OF_VALUES) & set(sweep.command):
        line += "; a sweep of the published code: --config-file published"
    return [line]


def _list(console: Console, sweep: Sweep, found: tuple[Cell, ...], runs: Path) -> None:
    """One row per cell, and the counts of their states."""
    names, experiment = varying(sweep), sweep.experiment()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("cell", justify="right")
    for name in (*names, "state", "run"):
        table.add_column(escape(name), no_wrap=True)
    states: Counter[str] = Counter()
    for cell in found:
        place = experiment.find(cell.config, runs)
        states[place.state] += 1
        values = (_shown(cell.values[name]) for name in names)
        table.add_row(str(cell.number), *values, place.state, escape(str(place.folder)))
    console.print(table)
    counts = ", ".join(f"{states[state]} {state}" for state in ("done", "unfinished", "waiting"))
    console.lines(f"\n{counts}")


def _space(sweep: Sweep) -> Table:
    """One row per parameter that is drawn."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("parameter")
    table.add_column("drawn from")
    for name in varying(sweep):
        table.add_row(escape(name), _drawn(sweep.parameters[name]))
    return table


def _drawn(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        shares = parameter.probabilities or (None,) * len(parameter.values)
        return ", ".join(
            _shown(value) if share is None else f"{_shown(value)} ({share:g})"
            for value, share in zip(parameter.values, shares, strict=True)
        )
    return f"{parameter.distribution}: " + ", ".join(f"{key} {n:g}" for key, n in parameter.numbers.items())


def _shown(value: object) -> str:
    return escape(_plain(value))


def _plain(value: object) -> str:
    return "null" if value is None else str(value)
