"""`neq results plot`: pictures of accuracy, cost and the neurons that runs chose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from pandas import DataFrame, Series, isna

from neq.budget import amount_shown
from neq.cli.parsing import ResultsParser
from neq.results.frame import runs
from neq.results.grouping import groups
from neq.results.pictures import accuracy_by_budget, accuracy_by_cost, save_picture
from neq.results.run_pictures import chosen_picture, velocity_picture
from neq.results.series import panels
from neq.runs.selection_file import SelectionHistory, read_selection_history
from neq.utils.console import Console
from neq.utils.errors import UserError


def command(arguments: list[str]) -> int:
    """Draws the pictures of sweeps; returns the exit code."""
    parser = ResultsParser(
        "plot",
        "Draw accuracy against budget and against measured cost (time, saved bytes, peak memory), and for "
        "each setting's first finished run the velocities and the chosen neurons by layer and epoch; each as "
        "PNG and SVG.",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="pictures",
        metavar="DIR",
        help="folder for the pictures (default: pictures)",
    )
    parser.add_argument(
        "--choices",
        type=int,
        default=12,
        metavar="N",
        help="settings whose velocities and chosen neurons are drawn (default: the first 12; 0: none)",
    )
    options = parser.parse_args(arguments[1:])
    if options.choices < 0:
        raise UserError(f"--choices {options.choices} is not allowed: 0 or more")
    console = Console()
    table = runs(options.files, options.runs_dir, options.config_file)
    done = table[table["state"] == "done"]
    if done.empty:
        raise UserError(f"none of the {len(table)} runs of these sweeps is done; neq cells FILE lists them")
    if len(done) < len(table):
        console.note(f"{len(table) - len(done)} of {len(table)} runs are not done: drawn without them")
    folder = Path(options.output).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in _pictures(console, table, options.choices):
            for path in save_picture(figure, folder / name):
                console.lines(str(path))
    except OSError as error:
        raise UserError(f"-o {folder} cannot be written ({error.strerror})") from error
    return 0


def _pictures(console: Console, table: DataFrame, count: int) -> Iterator[tuple[str, Figure]]:
    """The figures by the names of their files; the choices of `count` settings at most."""
    by_setting = groups(table)
    for panel in panels(by_setting):
        unit = "" if panel.unit == "parameters" else f"-{panel.unit}"
        place = _file_name(f"{panel.dataset}-{panel.network}{unit}")
        yield f"budget-{place}", accuracy_by_budget(panel)
        yield f"cost-{place}", accuracy_by_cost(panel)
    if count == 0:
        return
    done = table[table["state"] == "done"].sort_values("seed", kind="stable").drop_duplicates("setting")
    first = done.set_index("setting").reindex(by_setting.index).dropna(subset=["folder"])
    if len(first) > count:
        console.note(f"choices are drawn for {count} of {len(first)} settings; --choices N draws more")
    names: set[str] = set()
    unreadable: list[UserError] = []
    for _, run in first.head(count).iterrows():
        try:
            choices = read_selection_history(Path(run["folder"]))
        except UserError as error:
            unreadable.append(error)
            continue
        yield from _of_run(run, choices, names)
    if unreadable:
        others = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        console.note(f"{unreadable[0]}{others}; their choices are not drawn")


def _of_run(run: Series, choices: SelectionHistory, names: set[str]) -> Iterator[tuple[str, Figure]]:
    """The pictures of a run's choices; `names` are those of earlier files."""
    amount = 0 if isna(run["budget_amount"]) else round(run["budget_amount"])
    seed = round(run["seed"])
    parts = (run["net_name"], run["data_set"], run["neuron_selection"], amount)
    name = _file_name("-".join([*map(str, parts), f"seed{seed}"]))
    if name in names:
        # They differ in another setting, which the hash in the folder's name stands for.
        name = f"{name}-{Path(run['folder']).name.rpartition('-')[2]}"
    names.add(name)
    budget = amount_shown(amount, run["budget_unit"])
    title = f"{run['net_name']} on {run['data_set']}, {run['neuron_selection']}, {budget}, seed {seed}"
    yield f"chosen-{name}", chosen_picture(choices, title)
    if choices.velocity is not None:
        yield f"velocity-{name}", velocity_picture(choices, title)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)
