"""The page of a report: one HTML file that holds its pictures itself and needs no scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import date
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import neq
from neq.results.report.contents import RunReport, best_of, facts, points
from neq.results.report.figures import (
    calibration_picture,
    confusion_picture,
    data_uri,
    map_picture,
    pareto_picture,
)
from neq.results.report.quality import Wrong
from neq.results.report.speed import BATCHES
from neq.results.run_pictures import curves_picture
from neq.utils.errors import printable

# Of more classes the page has those with the lowest F1; the book has all.
MOST_CLASSES, CONFUSED = 30, 6
_ENVIRONMENT = {
    "cpu": "processor", "cpu_flags": "extensions", "threads": "threads", "torch": "torch",
    "onnxruntime": "onnxruntime", "device_name": "device", "neq": "neq", "python": "Python",
    "platform": "system",
}  # fmt: skip


def render(runs: Sequence[RunReport], today: date | None = None) -> str:
    """The page as HTML.

    Args:
        runs: one or more, in their order.
        today: the date that it bears; none: of now.
    """
    loader = jinja2.PackageLoader("neq.results.report", "templates")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"percent": _percent, "printable": printable}
    rows, every = facts(runs), points(runs)
    sections: dict[str, list[dict[str, Any]]] = {}
    for fact in rows:
        best = best_of(fact, runs)
        cells = [{"text": fact.shown(run), "best": run.name in best} for run in runs]
        sections.setdefault(fact.section, []).append({"header": fact.header, "cells": cells})
    return pages.get_template("report.html").render(
        title=" and ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        today=(today or date.today()).isoformat(),
        version=neq.__version__,
        runs=[_run(run) for run in runs],
        sections=sections,
        pareto=data_uri(pareto_picture(every)) if len(every) > 1 else None,
    )


def _run(run: RunReport) -> dict[str, Any]:
    """What the template needs of a run."""
    quality, classes = run.quality, run.quality.evaluation.classes
    table = quality.classes
    if len(table) > MOST_CLASSES:
        table = table.nsmallest(MOST_CLASSES, "f1")
    kind = "png" if len(classes) > MOST_CLASSES else "svg"
    place = quality.map
    return {
        "name": run.name,
        "about": run.title,
        "folder": str(run.run.folder),
        "classes": table.to_dict("records"),
        "all_classes": len(classes),
        "confusion": data_uri(confusion_picture(quality.confusion, classes), kind),
        "confused": quality.confused(CONFUSED).to_dict("records"),
        "wrong": [
            {"photo": _photo(each.photo), "wrong": each, "name": _file(each)} for each in quality.wrong()
        ],
        "curves": data_uri(curves_picture(run.metrics)) if run.metrics else None,
        "calibration": data_uri(calibration_picture(quality.calibration, quality.ece)),
        "map": None if place is None else data_uri(map_picture(*place, classes), "png"),
        "speed": _speed(run),
        "environments": [_named(each.to_json()) for each in run.environments],
    }


def _speed(run: RunReport) -> dict[str, Any] | None:
    if run.speed is None:
        return None
    return {
        "table": run.speed.variants,
        "batches": BATCHES,
        "int8": run.speed.int8,
        "images": run.speed.images,
        "real": run.speed.real,
        "missing": run.speed.missing,
        "environment": _named(run.speed.environment),
    }


def _named(environment: dict[str, Any]) -> str:
    """An environment in a line."""
    found = {name: environment.get(key) for key, name in _ENVIRONMENT.items()}
    if found["device"] == found["processor"]:
        found["device"] = None
    return ", ".join(f"{name} {value}" for name, value in found.items() if value is not None)


def _photo(pixels: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _file(wrong: Wrong) -> str:
    return wrong.name.rpartition("/")[2]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
