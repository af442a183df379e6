"""The table of the int8 benchmark, in Markdown, from nothing but recorded runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.transfer_report import Report, machines
from benchmarks.transfer_table import NOTHING, accuracy, chosen_rate, has_diverged, markdown, rates_kept

Run = dict[str, Any]


def tables(report: Report) -> str:
    """Accuracy by cell and set, and what a step of each takes."""
    runs, seed = report.runs, report.settings.get("grid_seed", 0)
    if not runs:
        return f"{report.path} holds no runs yet"
    sets = list(dict.fromkeys(run["dataset"] for run in runs))
    cells = list(dict.fromkeys(run["cell"] for run in runs))
    rates = {(name, cell): chosen_rate(runs, name, cell, seed) for name in sets for cell in cells}
    rows = []
    for cell in cells:
        of_cell = [run for run in runs if run["cell"] == cell]
        kept = [run for run in of_cell if run["base_lr"] == rates[run["dataset"], cell]]
        # Of sets where no rate is kept all runs have diverged, as the table shows.
        shown = kept + [run for run in of_cell if rates[run["dataset"], cell] is None]
        top1 = (accuracy([run for run in shown if run["dataset"] == name]) for name in sets)
        rows.append([cell, *top1, *_costs(shown)])
    heads = ["cell", *(f"{name}: top-1 %" for name in sets), "kB, published model"]
    heads += ["kB kept, measured", "kB of training, measured", "seconds a step"]
    return "\n".join([*markdown(heads, rows), "", _notes(report)])


def _costs(runs: Sequence[Run]) -> list[str]:
    """What a step takes, by the first set: the bytes of gradients depend on its classes."""
    first = [run for run in runs if run["dataset"] == runs[0]["dataset"]]
    kilobytes = [
        _mean((run["model_kilobytes"] for run in first), "{:.1f}"),
        _mean((run["kept_bytes"] and run["kept_bytes"] / 1024 for run in first), "{:.1f}"),
        _mean((run["training_bytes"] and run["training_bytes"] / 1024 for run in first), "{:.1f}"),
    ]
    # The fastest epoch: what else runs on the machine can only slow a step down.
    fastest = [min(run["step_seconds"]) for run in runs if run["step_seconds"]]
    return [*kilobytes, f"{statistics.median(fastest):.3f}" if fastest else NOTHING]


def _mean(values: Iterable[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(statistics.fmean(known)) if known else NOTHING


def _notes(report: Report) -> str:
    settings, runs = report.settings, report.runs
    seeds = sorted({run["seed"] for run in runs})
    diverged = sum(map(has_diverged, runs))
    return (
        f"{settings['network']}, {settings['image_size']} px, batch {settings['batch_size']}, "
        f"{settings['epochs']} epochs after {settings['epochs'] // 9} of warm-up, seeds "
        f"{', '.join(map(str, seeds))}; {len(runs)} runs, {diverged} of them diverged, on "
        f"{machines(runs)}, one thread. Test top-1 of the best epoch by validation, mean and standard "
        "deviation over seeds. Kilobytes of 1,024 bytes, of training with one photo of the first set; "
        "measured: kept for backward by a step, divided by its photos, and with gradients and optimizer "
        f"state. Seconds: the fastest epoch of each run, median. {rates_kept(report, ':')}"
    )
