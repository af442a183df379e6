"""`neq results best`: the best network of the sweeps' runs."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from neq.cli.parsing import ResultsParser
from neq.results.best import DEFAULT, best_run, copy_best, settings_of
from neq.results.frame import runs
from neq.runs.metrics import quality_metrics
from neq.utils.console import Console


def command(arguments: list[str]) -> int:
    """Names the best network, and copies it with --copy; returns the exit code."""
    metrics = quality_metrics()
    parser = ResultsParser(
        "best",
        "Name the best network among the finished runs of sweeps, with its settings. --copy writes its "
        "weights (best.safetensors), config.yaml, classes.json and predict.py, which classifies image files.",
    )
    parser.add_argument(
        "--metric", default=DEFAULT, metavar="NAME", help=f"{', '.join(metrics)} (default: {DEFAULT})"
    )
    parser.add_argument("--copy", metavar="DIR", help="folder for a copy of the network")
    parser.add_argument("--force", action="store_true", help="replace the files of a former copy")
    options = parser.parse_args(arguments[1:])
    console = Console()
    table = runs(options.files, options.runs_dir, options.config_file)
    run = best_run(table, options.metric)
    folder = Path(run["folder"])
    if metrics[options.metric].split == "test":
        console.warn("chosen by the test split: the figure is no longer an honest estimate for new images")
    states = Counter(table["state"])
    done = states.pop("done")
    left = "".join(f", {count} {state}" for state, count in sorted(states.items()))
    lines = [
        f"{folder}",
        f"best {options.metric} of {done} finished runs{left}",
        *(f"  {name} {_shown(run[name])}" for name in metrics),
        f"  epoch {run['best_epoch']:.0f} (of {run['epochs']}, from 0)",
        "settings",
        *(f"  {name} {value}" for name, value in sorted(settings_of(run).items()) if value is not None),
    ]
    if options.copy is not None:
        target = Path(options.copy).expanduser()
        copied = copy_best(folder, target, options.force)
        lines.append(f"copied to {target}: {', '.join(copied)}")
        lines.append(f"try it: python {target / 'predict.py'} IMAGE ...")
    console.lines(*lines)
    return 0


def _shown(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.4f}"
