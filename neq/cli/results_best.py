"""`neq results best`: the best network of the sweeps' runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from neq.cli.results_parser import ResultsParser
from neq.results.best import DEFAULT, METRICS, best_run, copy_best, settings_of, value_of
from neq.results.collect import collect
from neq.utils.console import Console


def command(arguments: list[str]) -> int:
    """Names the best network, and copies it where that is asked; gives the exit code."""
    parser = ResultsParser(
        "best",
        "Name the best network among the finished runs of sweeps, with its settings. --copy writes its "
        "weights (best.safetensors), config.yaml, classes.json and predict.py, which classifies image files.",
    )
    parser.add_argument(
        "--metric", default=DEFAULT, metavar="NAME", help=f"{', '.join(METRICS)} (default: {DEFAULT})"
    )
    parser.add_argument("--copy", metavar="DIR", help="folder for a copy of the network")
    parser.add_argument("--force", action="store_true", help="replace the files of a former copy")
    options = parser.parse_args(arguments[1:])
    console = Console()
    runs = collect(options.files, options.runs_dir, options.config_file)
    run = best_run(runs, options.metric)
    assert run.folder is not None
    assert run.summary is not None
    if options.metric.startswith("test_"):
        line = "chosen by the test split: the figure is no longer an honest estimate for new images"
        console.print(f"neq: warning: {line}", style="yellow", highlight=False, markup=False)
    others = Counter(one.state for one in runs if one.state != "done")
    left = "".join(f", {count} {state}" for state, count in sorted(others.items()))
    lines = [
        f"{run.folder}",
        f"best {options.metric} of {len(runs) - sum(others.values())} finished runs{left}",
        *(f"  {name} {_shown(value_of(run, name))}" for name in METRICS),
        f"  epoch {run.summary['best_epoch']} (of {run.summary['epochs']}, from 0)",
        "settings",
        *(f"  {name} {value}" for name, value in sorted(settings_of(run).items()) if value is not None),
    ]
    if options.copy is not None:
        target = Path(options.copy).expanduser()
        copied = copy_best(run.folder, target, options.force)
        lines.append(f"copied to {target}: {', '.join(copied)}")
        lines.append(f"try it: python {target / 'predict.py'} IMAGE ...")
    for line in lines:
        console.print(line, highlight=False, markup=False)
    return 0


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
