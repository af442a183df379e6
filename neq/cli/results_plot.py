"""`neq results plot`: pictures of what runs reached, cost and chose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from neq.budget import amount_shown
from neq.cli.results_parser import ResultsParser
from neq.results.collect import Group, Run, collect, group
from neq.results.pictures import accuracy_by_budget, accuracy_by_cost, save_picture
from neq.results.run_pictures import Choices, chosen_picture, read_choices, velocity_picture
from neq.results.series import panels
from neq.runs.run_reader import number
from neq.utils.console import Console
from neq.utils.errors import UserError


def command(arguments: list[str]) -> int:
    """Draws the pictures of sweeps; gives the exit code."""
    parser = ResultsParser(
        "plot",
        "Draw accuracy against budget and against measured cost (time, kept bytes, peak memory), and of each "
        "setting's first finished run the velocities and the chosen neurons by layer and epoch; each as PNG "
        "and SVG.",
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
    runs = collect(options.files, options.runs_dir, options.config_file)
    groups = group(runs)
    done = [run for run in runs if run.state == "done"]
    if not done:
        raise UserError(f"none of the {len(runs)} runs of these sweeps is done; neq cells FILE lists them")
    if len(done) < len(runs):
        _note(console, f"{len(runs) - len(done)} of {len(runs)} runs are not done: drawn without them")
    folder = Path(options.output).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in _pictures(console, groups, options.choices):
            for path in save_picture(figure, folder / name):
                console.print(str(path), highlight=False, markup=False)
    except OSError as error:
        raise UserError(f"-o {folder} cannot be written ({error.strerror})") from error
    return 0


def _pictures(console: Console, groups: list[Group], count: int) -> Iterator[tuple[str, Figure]]:
    """The figures by the names of their files; the choices of so many settings."""
    for panel in panels(groups):
        unit = "" if panel.unit == "parameters" else f"-{panel.unit}"
        place = _file_name(f"{panel.dataset}-{panel.network}{unit}")
        yield f"budget-{place}", accuracy_by_budget(panel)
        yield f"cost-{place}", accuracy_by_cost(panel)
    if count == 0:
        return
    first = [run for one in groups for run in one.done[:1] if run.folder is not None]
    if len(first) > count:
        _note(console, f"choices are drawn for {count} of {len(first)} settings; --choices N draws more")
    taken: set[str] = set()
    unreadable: list[UserError] = []
    for run in first[:count]:
        try:
            choices = read_choices(Path(str(run.folder)))
        except UserError as error:
            unreadable.append(error)
            continue
        yield from _of_run(run, choices, taken)
    if unreadable:
        others = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        _note(console, f"{unreadable[0]}{others}; their choices are not drawn")


def _of_run(run: Run, choices: Choices, taken: set[str]) -> Iterator[tuple[str, Figure]]:
    """The pictures of a run's choices."""
    assert run.summary is not None
    config = run.config
    amount = round(number(run.summary.get("budget")) or 0)
    budget = amount_shown(amount, config["budget_unit"])
    said = (config["net_name"], config["dataset"], config["neuron_selection"], amount)
    name = _file_name("-".join([*map(str, said), f"seed{run.seed}"]))
    if name in taken and run.folder is not None:
        # They differ in another setting, which the hash in the folder's name stands for.
        name = f"{name}-{run.folder.name.rpartition('-')[2]}"
    taken.add(name)
    where = f"{config['net_name']} on {config['dataset']}"
    title = f"{where}, {config['neuron_selection']}, {budget}, seed {run.seed}"
    yield f"chosen-{name}", chosen_picture(choices, title)
    if choices.velocity is not None:
        yield f"velocity-{name}", velocity_picture(choices, title)


def _note(console: Console, line: str) -> None:
    console.print(f"neq: {line}", style="dim", highlight=False, markup=False)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)
