"""The best network among the runs of a sweep, and a copy of it that stands alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pandas import DataFrame, Series

from neq.runs import load_run
from neq.runs.layout import BEST_WEIGHTS, CLASSES, CONFIG, RECIPE
from neq.runs.metrics import quality_metrics
from neq.utils.atomic_files import atomic_file, write_text
from neq.utils.errors import UserError, unknown_name

DEFAULT = "val_top1"

PREDICT = '''"""Classifies image files: python predict.py IMAGE ... (needs neq, and the files beside it)"""

import sys
from pathlib import Path

from neq.results.best_network import load_best
from neq.results.prediction import predict

for prediction in predict(load_best(Path(__file__).resolve().parent), sys.argv[1:], top=1):
    print(prediction)
'''


def best_run(runs: DataFrame, metric: str = DEFAULT) -> Series:
    """The row of the finished run with the best value of a metric; of equal ones the first.

    Args:
        runs: of one data set, done or not, as of `neq.results.runs`.
        metric: one that rates a network, by its name in summary.json.

    Raises:
        UserError: an unknown metric, no finished run that has it, or runs of several data sets.
    """
    metrics = quality_metrics()
    if metric not in metrics:
        raise unknown_name("metric", metric, metrics)
    done = runs[runs["state"] == "done"]
    if done.empty:
        raise UserError(f"none of the {len(runs)} runs of these sweeps is done; neq cells FILE lists them")
    data = sorted(done["data_set"].unique())
    if len(data) > 1:
        raise UserError(
            f"the runs are of {', '.join(data)}, whose figures do not compare; "
            "give the sweeps of one data set"
        )
    rated = done[done[metric].notna()]
    if rated.empty:
        raise UserError(
            f"none of the {len(done)} finished runs has a {metric}: they did not record it, or had no "
            "validation split; --metric test_top1 would choose by the test split"
        )
    values = rated[metric]
    return rated.loc[values.idxmax() if metrics[metric].higher_is_better else values.idxmin()]


def settings_of(run: Series) -> dict[str, Any]:
    """The settings of a run that identify it, its seed among them: leaf -> JSON value without defaults.

    Args:
        run: a row of `neq.results.runs`.
    """
    named: dict[str, Any] = json.loads(run["key"])
    return named


def copy_best(folder: Path, target: Path, force: bool = False) -> tuple[str, ...]:
    """Copies the best network of a run: weights, configuration, class names, and a script that uses them.

    Args:
        folder: of the run.
        target: the folder to write; made when it is not there.
        force: replace files of these names.

    Returns:
        The names of the files.

    Raises:
        UserError: the run's network cannot be read, or the target cannot be written or holds such files.
    """
    from neq.results.best_network import load_best

    best = load_best(folder)  # read before anything is written
    weights = load_run(folder).best_weights.read_bytes()
    texts = {
        CONFIG: (folder / CONFIG).read_text(encoding="utf-8"),
        CLASSES: json.dumps(best.classes) + "\n",
        "predict.py": PREDICT,
    }
    if (folder / RECIPE).exists():
        texts[RECIPE] = (folder / RECIPE).read_text(encoding="utf-8")
    names = (BEST_WEIGHTS, *texts)
    if target.exists() and not target.is_dir():
        raise UserError(f"--copy {target} is a file; give a folder")
    there = [name for name in names if (target / name).exists()]
    if there and not force:
        raise UserError(f"--copy {target} holds {there[0]} already; --force replaces it")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with atomic_file(target / BEST_WEIGHTS) as file:
            file.write(weights)
        for name, text in texts.items():
            write_text(target / name, text)
    except OSError as error:
        raise UserError(f"--copy {target} cannot be written ({error.strerror})") from error
    return names
