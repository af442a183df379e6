"""The record of a sequence: sequence.json, and its accuracies as a table in sequence.csv."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from neq.planning.sequence import Stage, TaskSequence
from neq.planning.task_plan import OVER
from neq.runs.identity import plain_identity
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, shown

RECORD, TABLE, LOCK = "sequence.json", "sequence.csv", ".lock"
FORMAT = 1
Accuracies = Mapping[str, float]


@dataclass(frozen=True)
class StageResult:
    """What a stage of a sequence left.

    Args:
        name: of the stage, and of the run's folder.
        task: that it trained on.
        objective: of its run; empty where nothing was trained.
        top1: of the network after it, in per cent, on the test photos of each task so far.
        online_top1: of an objective without labels: accuracy of the predictions made before each step.
        stored: of a delta checkpoint: its file, bytes, values, and top-1 on the task after reloading.
        plans: that it was trained under, in order (`TaskPlan.ran`); none where it was not planned.
    """

    name: str
    task: str
    objective: str
    top1: Accuracies
    online_top1: float | None = None
    stored: Mapping[str, Any] | None = None
    plans: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass
class SequenceRecord:
    """The results of a sequence so far, in one folder.

    Args:
        folder: of the sequence.
        plan: identity of each stage's run, without images and without the weights carried on.
        stages: results, in order.
        source: top-1 of the source's network on each task, in per cent.
        statistics: the same with the norm statistics of the test batches; without tasks where it has no
            batch norm.
    """

    folder: Path
    plan: list[dict[str, Any]]
    stages: list[StageResult] = field(default_factory=list)
    source: dict[str, float] = field(default_factory=dict)
    statistics: dict[str, float] = field(default_factory=dict)

    def write(self) -> None:
        """Writes both files."""
        content = {"format": FORMAT, **{key: value for key, value in asdict(self).items() if key != "folder"}}
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(self.rows())
        write_text(self.folder / TABLE, table.getvalue())
        write_text(self.folder / RECORD, json.dumps(content, indent=2) + "\n")

    def rows(self) -> list[list[str]]:
        """Header and rows of the table: the network after each stage, and what it is compared with."""
        tasks = list(dict.fromkeys(stage.task for stage in self.stages))
        named: list[tuple[str, Accuracies]] = [
            ("source", self.source),
            ("statistics alone", self.statistics),
            *((f"after {stage.name}", stage.top1) for stage in self.stages[1:]),
        ]
        return [
            ["network", *tasks],
            *(
                [name, *(f"{top1[task]:.2f}" if task in top1 else "" for task in tasks)]
                for name, top1 in named
            ),
        ]

    def plan_rows(self) -> list[list[str]]:
        """Header and rows of the table of plans: what each task ran under, when, and what that took."""
        header = ["task", "epochs", "learns", "images", "segments", "memory", "MiB", "used", "s"]
        return [[*header, ""], *(row for stage in self.stages for row in _plan_rows(stage))]


def _plan_rows(stage: StageResult) -> Iterator[list[str]]:
    """A row for windows in a row under one plan."""
    spans = [
        list(windows) for _, windows in groupby(stage.plans, lambda each: (each["row"], each["explored"]))
    ]
    begins = [windows[0]["epoch"] for windows in spans]
    for windows, first, end in zip(spans, begins, [*begins[1:], math.inf], strict=False):
        window, settings = windows[-1], windows[-1]["settings"]
        yield [
            stage.name,
            f"from {first}" if end == math.inf else f"{first} to {end - 1}" if end > first else "none",
            window["learns"],
            str(settings.get("micro_batch_size", "all")),
            str(1 + len(settings.get("checkpoint_cuts", ()))),
            settings["memory"],
            f"{window['peak'] / 2**20:,.1f}",
            f"{max(each['used'] for each in windows) / 2**20:,.1f}",
            f"{sum(each['seconds'] for each in windows):,.0f}",
            ", ".join(["explored"] * window["explored"] + [window["ended"]] * (window["ended"] != OVER)),
        ]


def open_record(sequence: TaskSequence, folder: Path) -> SequenceRecord:
    """The record of a sequence in a folder; an empty one where there is none yet. Writes nothing.

    Raises:
        UserError: the folder holds something else, or stages that were begun with other settings.
    """
    plan = [
        {"name": stage.name, **plain_identity(sequence.config(stage).config), **_limits(sequence, stage)}
        for stage in sequence.stages
    ]
    path = folder / RECORD
    if not path.exists():
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {folder} is a file; give a folder")
        there = sorted(each.name for each in folder.glob("[!.]*") if each.name != TABLE)
        if there:
            raise UserError(
                f"--out {folder} holds {there[0]!r} and no {RECORD}; give an empty or a new folder"
            )
        return SequenceRecord(folder, plan)
    content = read_object(path)
    if content.pop("format", None) != FORMAT:
        raise UserError(f"{path} is in a format that this version of neq does not read ({FORMAT})")
    try:
        record = TypeAdapter(SequenceRecord).validate_python({**content, "folder": folder})
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{path} is damaged ({where}); put it back, or give another --out") from None
    for number, former in enumerate(record.plan):
        now = plan[number] if number < len(plan) else {}
        if former != now and (number < len(record.stages) or (folder / str(former.get("name"))).exists()):
            raise UserError(
                f"--out {folder} holds another sequence ({_difference(former, now)}); give another"
            )
    record.plan = plan
    return record


def _limits(sequence: TaskSequence, stage: Stage) -> dict[str, Any]:
    """The limits of a stage, by key; none where it has none."""
    limits = sequence.limits if sequence.is_limited(stage) else None
    return {} if limits is None else limits.identity


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first setting of a stage that differs."""
    stage = there.get("name")
    if stage != here.get("name"):
        return f"{stage} is not in its place in this file"
    key = next(key for key in sorted({*there, *here}) if there.get(key) != here.get(key))
    values: Sequence[str] = [shown(each.get(key, "its default")) for each in (there, here)]
    return f"{stage}: {key} is {values[0]} there, {values[1]} here"
