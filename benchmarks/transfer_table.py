"""The tables of the transfer benchmark, in Markdown, from nothing but recorded runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from scipy import stats

from benchmarks.transfer_report import Report
from benchmarks.transfer_runs import CELLS, Rate

BASELINE = "full-train"
NOTHING = "–"
Run = dict[str, Any]


def chosen_rate(runs: Sequence[Run], dataset: str, cell: str, grid_seed: int) -> Rate | None:
    """The learning rate that a cell keeps: the best on validation, then the one with the lower loss.

    None where there is no run of the grid yet, or all of them diverged.
    """
    grid = [run for run in _of(runs, dataset, cell) if run["seed"] == grid_seed and not has_diverged(run)]
    if not grid:
        return None
    best = max(grid, key=lambda run: (run["val_top1"], -run["val_loss"]))
    rate: Rate = best["base_lr"]
    return rate


def paired(differences: Sequence[float]) -> tuple[float, float | None]:
    """Their mean and half the width of its 95 % t interval; none for fewer than two."""
    mean = statistics.fmean(differences)
    count = len(differences)
    if count < 2:
        return mean, None
    width = stats.t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return mean, float(width)


def difference(pairs: Sequence[float], digits: int = 2) -> str:
    """`+1.39 ± 1.21 (n = 4)`: the mean of paired differences with its 95 % t interval, if it has one."""
    mean, width = paired(pairs)
    interval = "" if width is None else f" ± {width:.{digits}f}"
    return f"{mean:+.{digits}f}{interval} (n = {len(pairs)})"


def tables(report: Report) -> str:
    """The results by cell, what they rest on, and how the learning rates were chosen."""
    runs, settings = report.runs, report.settings
    if not runs:
        return f"{report.path} holds no runs yet"
    datasets = list(dict.fromkeys(run["dataset"] for run in runs))
    cells = [cell for cell in CELLS if any(run["cell"] == cell for run in runs)]
    rates = {
        (name, cell): chosen_rate(runs, name, cell, settings["grid_seed"])
        for name in datasets
        for cell in cells
    }
    kept = {
        (run["dataset"], run["cell"], run["seed"]): run
        for run in runs
        if run["base_lr"] == rates[run["dataset"], run["cell"]]
    }
    heads = ["cell", *(f"{name}: lr" for name in datasets), *(f"{name}: test top-1 %" for name in datasets)]
    heads += ["difference to full-train", "step time", "saved for backward"]
    lines = markdown(heads, ([cell, *_row(cell, datasets, rates, kept)] for cell in cells))
    lines += ["", *_notes(report, datasets, cells, kept), "", "Validation top-1 % by learning rate:", ""]
    grid = settings["grid"]
    heads = ["cell", *(f"{name}, {rate:g}" for name in datasets for rate in grid)]
    lines += markdown(heads, ([cell, *_grid_row(runs, cell, datasets, rates, settings)] for cell in cells))
    return "\n".join(lines)


def _row(
    cell: str,
    datasets: Sequence[str],
    rates: dict[tuple[str, str], Rate | None],
    kept: dict[tuple[str, str, int], Run],
) -> list[str]:
    mine = {(name, seed): run for (name, of, seed), run in kept.items() if of == cell}
    base = {(name, seed): run for (name, of, seed), run in kept.items() if of == BASELINE}
    row = [NOTHING if (rate := rates[name, cell]) is None else f"{rate}" for name in datasets]
    row += [accuracy([run for (of, _), run in mine.items() if of == name]) for name in datasets]
    pairs = [
        (run, base[key])
        for key, run in mine.items()
        if key in base and not has_diverged(run) and not has_diverged(base[key])
    ]
    if cell == BASELINE or not pairs:
        row.append(NOTHING)
    else:
        row.append(difference([run["test_top1"] - other["test_top1"] for run, other in pairs]))
    if not pairs:
        return [*row, NOTHING, NOTHING]
    # The fastest epoch: what else runs on the machine can only slow a step down.
    time = statistics.median(min(run["step_seconds"]) / min(other["step_seconds"]) for run, other in pairs)
    saved = statistics.fmean(run["saved_bytes"] for run, _ in pairs)
    share = statistics.fmean(run["saved_bytes"] / other["saved_bytes"] for run, other in pairs)
    return [*row, f"{time:.2f}", f"{saved / 2**20:.1f} MiB ({share:.3f})"]


def accuracy(runs: Sequence[Run]) -> str:
    """`95.42 ± 0.48`, mean and standard deviation over seeds; diverged runs are counted beside it."""
    finished = [run["test_top1"] for run in runs if not has_diverged(run)]
    lost = len(runs) - len(finished)
    if not runs:
        return NOTHING
    if not finished:
        return "diverged"
    spread = f" ± {statistics.stdev(finished):.2f}" if len(finished) > 1 else ""
    return f"{statistics.fmean(finished):.2f}{spread}" + (
        f" ({lost} of {len(runs)} diverged)" if lost else ""
    )


def _grid_row(
    runs: Sequence[Run],
    cell: str,
    datasets: Sequence[str],
    rates: dict[tuple[str, str], Rate | None],
    settings: dict[str, Any],
) -> list[str]:
    row = []
    for name in datasets:
        by_rate = {
            run["base_lr"]: run for run in _of(runs, name, cell) if run["seed"] == settings["grid_seed"]
        }
        for rate in settings["grid"]:
            run = by_rate.get(rate)
            text = NOTHING if run is None else "diverged" if has_diverged(run) else f"{run['val_top1']:.2f}"
            row.append(f"**{text}**" if rate == rates[name, cell] else text)
    return row


def _notes(
    report: Report, datasets: Sequence[str], cells: Sequence[str], kept: dict[tuple[str, str, int], Run]
) -> list[str]:
    settings, runs = report.settings, report.runs
    seeds = sorted({run["seed"] for run in runs})
    machines = {
        f"{of['device']}, {of['cpu']}, {of['threads']} thread(s), torch {of['torch']}": None
        for of in (run["machine"] for run in runs)
    }
    lines = [
        f"{settings['network']} (weights {settings['weights']}), {settings['image_size']} px, batch "
        f"{settings['batch_size']}, {settings['epochs']} epochs, scheme {settings['scheme']}, seeds "
        f"{', '.join(map(str, seeds))}; {len(runs)} runs on {'; '.join(machines)}.",
        "Test top-1 of the best epoch by validation, mean and standard deviation over seeds. Difference: "
        "mean over the pairs (data set, seed) in per cent points, with its 95 % paired t interval. Step "
        "time: that of a run's fastest epoch, median ratio over the pairs. Saved for backward: mean, and the "
        "share of full-train's.",
    ]
    missing = [
        f"{name} {cell} seed {seed}"
        for name in datasets
        for seed in seeds
        for cell in cells
        if (name, cell, seed) not in kept
    ]
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        lines.append(f"Not there, diverged on the whole grid or not yet run: {len(missing)} ({shown}).")
    return lines


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def rates_kept(report: Report, behind: str = "") -> str:
    """The learning rates that the cells with a grid keep, by set; * where it is an end of what was tried.

    Args:
        report: of the runs.
        behind: put behind the name of a cell.
    """
    tried: dict[tuple[str, str], set[float]] = {}
    for run in report.runs:
        if run["base_lr"] != "auto" and run["seed"] == report.settings["grid_seed"]:
            tried.setdefault((run["cell"], run["dataset"]), set()).add(run["base_lr"])
    kept: dict[str, list[str]] = {}
    for (cell, name), rates in tried.items():
        rate = chosen_rate(report.runs, name, cell, report.settings["grid_seed"])
        if rate is not None:
            end = "*" if rate in (min(rates), max(rates)) else ""
            kept.setdefault(cell, []).append(f"{rate}{end} on {name}")
    texts = (f"{cell}{behind} {', '.join(places)}" for cell, places in kept.items())
    return f"Rates kept (* an end of those tried): {'; '.join(texts)}."


def _of(runs: Iterable[Run], dataset: str, cell: str) -> list[Run]:
    return [run for run in runs if run["dataset"] == dataset and run["cell"] == cell]


def has_diverged(run: Run) -> bool:
    """Whether a run reached nothing."""
    return bool(run["outcome"] == "diverged")
