import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neq.planning.device_plan import DevicePlan, PlannedRow
from neq.planning.gain import Gain, Mean
from neq.planning.rules import Limits
from neq.planning.task_plan import PLANS, TaskPlan, Window, latest_memory
from neq.utils.errors import UserError


def row(memory: str) -> PlannedRow:
    settings = {"norm_mode": "frozen", "saved_precision": "exact", "memory": memory}
    return PlannedRow(settings, 0.5, 1000, 5.0)


def task() -> TaskPlan:
    plan = DevicePlan({}, Limits(1100, 60), "a CPU", (row("fast"), row("tight")), (0, 1))
    gain = Gain(0.1, 0.2, 3.0, 50)
    windows = (Window(1, True, 0, 3.0, 900, "over", gain), Window(0, epoch=2))
    return TaskPlan(plan, 4.5, 0.1, 50, "a.json", {"50%": Mean(0.1, 0.2)}, windows)


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "plans" / "a.json"
    task().write(path)
    assert TaskPlan.read(path) == task()
    DevicePlan.read(path)  # as neq plan writes it, and neq train takes it
    untouched = replace(task(), before=None, means={}, windows=())
    untouched.write(path)
    assert TaskPlan.read(path) == untouched


def test_a_task_ends_with_its_last_window() -> None:
    assert task().ended == ""
    assert task().with_last(ended="exceeded").ended == ""
    assert task().with_last(ended="finished").ended == "finished"
    assert task().with_last(ended="deadline").ended == "deadline"
    assert replace(task(), windows=()).ended == ""


def test_what_ran_in_words() -> None:
    first, second = task().ran()
    assert first["learns"] == second["learns"] == "50%, frozen norms, exact"
    assert (first["row"], first["explored"], first["gain"]["after"], first["peak"]) == (1, True, 0.2, 1000)
    assert json.loads(json.dumps(task().ran())) == [first, second]


CHANGES: dict[str, Any] = {
    "version": {"task_format": 2},
    "no task": {"task": None},
    "no windows": {"task": {"spent": 1}},
    "plan": {"rows": []},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_file_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.json"
    task().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **CHANGES[change]}))
    with pytest.raises(UserError, match=r"a\.json is damaged, or of another version"):
        TaskPlan.read(path)


def test_a_window_of_a_row_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    task().with_last(row=2).write(path)
    with pytest.raises(UserError, match="is damaged"):
        TaskPlan.read(path)


def test_the_memory_setting_of_what_comes_next(tmp_path: Path) -> None:
    assert latest_memory(tmp_path) == ""
    task().with_last(row=1).write(tmp_path / PLANS / "01_a.json")
    assert latest_memory(tmp_path) == "tight"
    task().write(tmp_path / PLANS / "02_b.json")
    assert latest_memory(tmp_path) == "fast"
    task().with_last(ended="finished").write(tmp_path / PLANS / "02_b.json")
    assert latest_memory(tmp_path) == ""
    task().write(tmp_path / PLANS / "99_a.json")
    task().with_last(row=1).write(tmp_path / PLANS / "100_b.json")
    assert latest_memory(tmp_path) == "tight"
