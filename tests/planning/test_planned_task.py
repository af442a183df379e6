"""Tasks of a sequence that are trained under plans."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import tests.planning.toy_network  # noqa: F401  (registers toy:NAME)
from neq.budget.step_time import StepTime
from neq.planning.retrain import retrain
from neq.planning.rules import Limits
from neq.planning.sequence import TaskSequence, read_sequence
from neq.planning.sequence_record import RECORD, SequenceRecord
from neq.planning.task_limits import TaskLimits
from neq.planning.task_plan import TaskPlan
from neq.runs import load_run
from neq.utils.errors import UserError
from tests.planning.killing import Killed, killed_and_finished

COMMON = (
    'augmentation: none, net_name: "toy:net", base_batch_size: 30, warmup_epochs: 0, n_epochs: 4, '
    "base_lr: .05, norm_mode: train, saved_precision: exact, checkpoint_segments: 1"
)
TASKS = "[{corruption: gaussian_noise:5}, {corruption: contrast:4}]"
ROOM = 2**33


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 digits."""
    path, digits = tmp_path_factory.mktemp("data") / "digits.npz", load_digits()
    np.savez(path, x=np.round(digits.images[:200] * 15).astype(np.uint8), y=digits.target[:200])
    return path


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that are not measured, and a cache of its own."""
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("neq.planning.estimate.kept_step_time", lambda *_: StepTime(1e-5, 1e-12, 1e-12, 0.1))


@pytest.fixture
def sequence(tmp_path: Path, images: Path) -> Callable[..., TaskSequence]:
    def read(limits: TaskLimits | None = None, tasks: str = TASKS, **more: str) -> TaskSequence:
        path = tmp_path / "shifts.yaml"
        lines = {"common": f"{{dataset: 'npz:{images}', {COMMON}}}", "tasks": tasks, **more}
        path.write_text("\n".join(f"{key}: {value}" for key, value in lines.items()))
        return read_sequence(path, limits=limits)

    return read


def plans(record: SequenceRecord) -> list[list[dict[str, Any]]]:
    return [[dict(window) for window in stage.plans] for stage in record.stages]


def test_each_task_runs_under_the_plan_that_is_chosen_for_it(sequence, tmp_path: Path) -> None:
    calls: list[int] = []
    out = tmp_path / "out"
    record = retrain(sequence(plan="{memory: 8GiB}"), out, between=lambda: calls.append(1))
    source, *tasks = plans(record)
    assert source == []
    for number, windows in enumerate(tasks, 1):
        (window,) = windows
        stage = record.stages[number]
        assert window["ended"] == "finished"
        assert 0 <= window["used"] < ROOM  # by how much the process has grown
        run = load_run(out / stage.name)
        assert run.is_finished
        assert run.config.NEq_config.budget == window["settings"]["budget"]
        assert run.identity["plan_memory"] == ROOM
        assert TaskPlan.read(out / "plans" / f"{stage.name}.json").ran() == windows
    assert calls  # planning, training and the next task may each have a process of their own
    header, *rows = record.plan_rows()
    assert [row[0] for row in rows] == ["01_gaussian_noise-5", "02_contrast-4"]
    assert rows[0][header.index("learns")].startswith("100%, train norms")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert retrain(sequence(plan="{memory: 8GiB}"), out) == record
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(UserError, match="01_gaussian_noise-5: plan_memory is 8589934592 there, 1073741824"):
        retrain(sequence(plan="{memory: 1GiB}"), out)


def results(out: Path) -> dict[str, object]:
    """What does not depend on how long a task took."""
    stages = json.loads((out / RECORD).read_text())["stages"]
    weights = {path.parts[-3]: path.read_bytes() for path in out.glob("*/checkpoint/best.safetensors")}
    rows = [[(each["row"], each["epoch"]) for each in stage["plans"]] for stage in stages]
    return {"top1": [stage["top1"] for stage in stages], "rows": rows, **weights}


@pytest.mark.slow
def test_killed_at_any_file_it_continues_bit_for_bit(
    sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, out = sequence(TaskLimits(Limits(ROOM))), tmp_path / "out"
    retrain(asked, tmp_path / "whole")
    kills = killed_and_finished(monkeypatch, (20, 1, 2, 3, 4, 9, 5, 14, 1, 2, 3), lambda: retrain(asked, out))
    assert kills >= 8
    assert results(out) == results(tmp_path / "whole")


@pytest.fixture
def windows_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short probes, and windows that end with every epoch, each under another plan than the best."""
    monkeypatch.setattr("neq.planning.planned_task.WINDOWS", 10**9)
    monkeypatch.setattr("neq.planning.planning.SHARE", 1e-3)
    monkeypatch.setattr("neq.planning.profiler.EXPLORED", 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("windows_of_an_epoch")
def test_a_run_goes_on_under_another_plan_in_each_window(
    sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, out = sequence(TaskLimits(Limits(ROOM, 1000), probe=True)), tmp_path / "out"
    stopped = 0

    def between() -> None:  # as a process that ends, and another one that goes on
        nonlocal stopped
        stopped += 1
        raise Killed

    record = None
    while record is None:
        try:
            record = retrain(asked, out, between=between)
        except Killed:
            assert stopped < 50
    _, first, second = plans(record)
    for number, windows in ((1, first), (2, second)):
        stage = record.stages[number]
        assert [window["epoch"] for window in windows] == [0, 1, 2, 3]
        assert [window["ended"] for window in windows] == ["over"] * 3 + ["finished"]
        assert all(window["explored"] for window in windows)
        assert len({window["learns"] for window in windows}) > 1
        run = load_run(out / stage.name)
        top1 = [row["valid"]["val/top1"] / 100 for row in run.metrics]
        plan = TaskPlan.read(out / "plans" / f"{stage.name}.json")
        assert [window["gain"]["before"] for window in windows] == pytest.approx([plan.before, *top1[:-1]])
        assert [window["gain"]["after"] for window in windows] == pytest.approx(top1)
        # What ran when stands in the run's own record too.
        stretches = run.header.stretches
        changed = [each["settings"] if each["row"] != windows[0]["row"] else {} for each in windows]
        expected = [
            (epoch, each) for epoch, each in enumerate(changed) if not epoch or each != changed[epoch - 1]
        ]
        assert [(each.epoch, dict(each.settings)) for each in stretches] == expected
    # The gains of a task are where the next one starts from.
    means = TaskPlan.read(out / "plans" / "01_gaussian_noise-5.json").means
    assert set(means) <= set(TaskPlan.read(out / "plans" / "02_contrast-4.json").means)


@pytest.mark.slow
def test_a_plan_above_the_limit_is_left_for_the_next_once(
    sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neq.planning.limit import MemoryExceeded, MemoryLimit

    asked, out = sequence(TaskLimits(Limits(ROOM)), "[{corruption: contrast:4}]"), tmp_path / "out"
    monkeypatch.setattr("neq.planning.device_plan._NEXT_BELOW", 1.0)  # all plans need about as much here
    checks, most = 0, 1

    def epoch(limit: MemoryLimit, report: object) -> None:
        nonlocal checks
        checks += 1
        if checks <= most:
            limit.used = ROOM + 2**20
            raise MemoryExceeded(limit.used, ROOM)

    monkeypatch.setattr(MemoryLimit, "epoch", epoch)
    record = retrain(asked, out)
    first, second = plans(record)[1]
    assert (first["ended"], second["ended"]) == ("exceeded", "finished")
    assert second["peak"] < first["peak"]
    assert first["epoch"] == second["epoch"] == 0
    assert first["used"] > ROOM
    checks, most = 0, 2
    with pytest.raises(UserError, match=r"2 plans have exceeded the limit, by up to 1\.0 MiB"):
        retrain(asked, tmp_path / "twice")
    with pytest.raises(UserError, match="2 plans have exceeded the limit"):
        retrain(asked, tmp_path / "twice")


def test_limits_that_nothing_meets_name_the_least(sequence, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a memory limit of 1.0 MiB is less than the .* the smallest plan"):
        retrain(sequence(TaskLimits(Limits(2**20))), tmp_path / "out")
    with pytest.raises(UserError, match="a deadline of 0 s is less than the "):
        retrain(sequence(TaskLimits(Limits(ROOM, 1e-9))), tmp_path / "other")


def test_an_objective_without_plans_is_held_within_the_limits(
    sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = "[{corruption: contrast:4, objective: tent}]"
    record = retrain(sequence(TaskLimits(Limits(ROOM)), tasks), tmp_path / "out")
    assert record.stages[1].plans == []
    taken = count()
    monkeypatch.setattr("neq.planning.limit.peak_memory", lambda device: (next(taken), ""))
    with pytest.raises(UserError, match="objective 'tent' has no plans: give it a micro_batch_size"):
        retrain(sequence(TaskLimits(Limits(1)), tasks), tmp_path / "small")
    monkeypatch.undo()
    with pytest.raises(UserError, match="the deadline of 0 s was over before the first epoch ended"):
        retrain(sequence(TaskLimits(Limits(ROOM, 1e-9)), tasks), tmp_path / "short")


def test_a_deadline_ends_a_task_with_its_best_epoch(
    sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neq.experiment.run import StopEarly
    from neq.experiment.time_limit import Deadline

    last = 1

    def step(deadline: Deadline, epoch: int, step: int, steps: int) -> None:
        if epoch == last:
            deadline.is_over = True
            raise StopEarly

    monkeypatch.setattr(Deadline, "step", step)
    asked = sequence(TaskLimits(Limits(ROOM, 1000)))
    record = retrain(asked, tmp_path / "out")
    assert [windows[0]["ended"] for windows in plans(record)[1:]] == ["deadline"] * 2
    assert len(load_run(tmp_path / "out" / "01_gaussian_noise-5").metrics) == 1
    last = 0
    with pytest.raises(UserError, match="was over before its first epoch ended; the same command continues"):
        retrain(asked, tmp_path / "short")
    last = 9
    assert len(retrain(asked, tmp_path / "short").stages) == 3
