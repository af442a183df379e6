"""Training a task of a sequence within its limits: planned, probed, then trained window by window.

What is done is kept in one file after each of these, so that the same call continues behind it. With probes
a window is a tenth of the deadline, rounded up to whole epochs; without, there is one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neq.config import Config, resolve
from neq.config.paths import cache_folder
from neq.experiment.memory_report import OutOfMemory
from neq.experiment.run import Notes, StepSettings, Stopping, run_training
from neq.experiment.time_limit import Deadline
from neq.planning.gain import Gain, Mean
from neq.planning.gain_table import read_means, table_path, write_means
from neq.planning.limit import MemoryExceeded, MemoryLimit
from neq.planning.planning import Planner, open_planner
from neq.planning.profiler import WINDOWS, pick, updated
from neq.planning.sequence import Stage, TaskSequence
from neq.planning.task_plan import DEADLINE, EXCEEDED, FINISHED, OVER, PLANS, TaskPlan, Window
from neq.planning.window_end import WindowEnd
from neq.runs import load_run
from neq.runs.layout import IDENTITY
from neq.training import Tracker
from neq.utils.device import pick_device
from neq.utils.errors import UserError
from neq.utils.exit_codes import Terminated
from neq.utils.seeds import generator

# Called before a run is trained; the tracker that follows it.
Following = Callable[[Stage, Config], AbstractContextManager[Tracker | None]]


@dataclass(frozen=True)
class Hooks:
    """What a caller takes part in.

    Args:
        follow: opens a tracker for each run.
        notes: called with each line for the user.
        stopping: as of `run_training`.
        between: called where what comes next needs a process of its own: memory that a process has taken
            counts. It may replace the process by one that makes the same call.
    """

    follow: Following
    notes: Notes
    stopping: Stopping
    between: Callable[[], None]


def _tables() -> Path:
    return cache_folder() / "gains"


def plan_path(out: Path, stage: Stage) -> Path:
    """The file of a task's plan.

    Args:
        out: folder of the sequence.
        stage: of it.
    """
    return out / PLANS / f"{stage.name}.json"


class PlannedTask:
    """A task of a sequence, to be trained under plans.

    Args:
        sequence: with limits.
        number: of the stage.
        weights: that it starts from; None: as the settings say.
        out: folder of the sequence.
        since: when its time began to count, by time.monotonic.
        hooks: of the caller.
    """

    def __init__(
        self, sequence: TaskSequence, number: int, weights: Path | None, out: Path, since: float, hooks: Hooks
    ) -> None:
        assert sequence.limits is not None
        self._sequence, self._number, self._out, self._hooks = sequence, number, out, hooks
        self._stage, self._asked = sequence.stages[number], sequence.limits
        self._folder, self._path = out / self._stage.name, plan_path(out, self._stage)
        self._base = sequence.base
        self._overrides = sequence.planned_settings(self._stage, weights)
        self._since, self._before = since, 0.0

    @property
    def _spent(self) -> float:
        """Seconds that count, by now."""
        return self._before + time.monotonic() - self._since

    def train(self) -> Config:
        """Plans and trains the task, or continues; returns the configuration that it was trained by last.

        Raises:
            UserError: limits below what any plan needs, two plans above the memory limit, or no epoch within
                the deadline.
            Others: as of `run_training`; the same call continues.
        """
        if self._path.exists():
            task = TaskPlan.read(self._path)
            self._before = task.spent
        else:
            task = self._kept(self._planned())
            self._hooks.between()
        limit: MemoryLimit | None = None
        row = None
        while not task.ended:
            task.plan.check_hits()
            if not task.windows or task.windows[-1].ended:
                task = self._kept(replace(task, windows=(*task.windows, self._next(task))))
            window = task.windows[-1]
            if limit is None or row != window.row:
                if limit is not None:
                    self._hooks.between()
                limit, row = self._limit(), window.row
            task = self._kept(self._window(task, limit))
        task = self._with_epochs(task)
        if task.table:
            write_means(_tables() / task.table, task.means)
        return self._settings(task.windows[-1].row, task)

    def _kept(self, task: TaskPlan) -> TaskPlan:
        task = replace(task, spent=self._spent)
        task.write(self._path)
        return task

    def _planned(self) -> TaskPlan:
        """The plan of the task, with what probes gained and what earlier tasks did."""
        limits, notes = self._asked.limits, self._hooks.notes
        given = self._sequence.given(self._stage)
        with open_planner(self._base, self._overrides, given, notes, self._out) as planner:
            task = TaskPlan(planner.plan(limits))
            if self._asked.probe:
                task = self._probed(task, planner)
        notes(f"{self._stage.name}: {len(task.plan.rows)} plans, {len(task.plan.order)} of which fit")
        return task

    def _probed(self, task: TaskPlan, planner: Planner) -> TaskPlan:
        """The plan after probes, whose gains count beside those of the task before, or of other sequences."""
        run = planner.run
        table = table_path(_tables(), run.device, run.network, run.step_spec().image_shape[-1])
        means = self._earlier() or read_means(table)
        plan, gains = planner.probe(task.plan)
        for number, gain in gains.items():
            means = updated(means, plan.rows[number].learning, gain)
        first = next(iter(gains.values()))
        return TaskPlan(plan, before=first.before, images=first.images, table=table.name, means=means)

    def _earlier(self) -> dict[str, Mean]:
        """The means of gains after the planned task before this one; empty: there is none."""
        for stage in reversed(self._sequence.stages[: self._number]):
            if (path := plan_path(self._out, stage)).exists():
                return dict(TaskPlan.read(path).means)
        return {}

    def _next(self, task: TaskPlan) -> Window:
        """The window that comes next: of the plan that gains most, or of the one that runs."""
        plan, epoch = task.plan, len(self._accuracies)
        if not self._asked.probe:
            return Window(plan.number, epoch=epoch)
        rows, _ = plan.alternatives, plan.number  # raises where none is left
        seed = self._sequence.config(self._stage).config.manual_seed
        stream = generator(seed, "plan", self._number, len(task.windows))
        learned, explored = pick(task.means, {name: plan.peak(row) for name, row in rows.items()}, stream)
        return Window(rows[learned], explored, epoch)

    def _window(self, task: TaskPlan, limit: MemoryLimit) -> TaskPlan:
        """The task after its last window, which begins or continues.

        Args:
            limit: of a process that has trained under no other plan.
        """
        window, limits, hooks = task.windows[-1], self._asked.limits, self._hooks
        first, config = (self._settings(row, task) for row in (task.windows[0].row, window.row))
        changed = {} if window.row == task.windows[0].row else task.plan.rows[window.row].settings
        hooks.notes(f"{self._stage.name}: {task.plan.described(window.row)}")
        begun = time.monotonic() - window.seconds
        deadline = Deadline(limits.deadline - self._spent, is_strict=True)
        length = limits.deadline / WINDOWS if self._asked.probe else math.inf
        end, ended = WindowEnd(length - window.seconds, hooks.stopping), FINISHED

        def kept_last(**more: Any) -> TaskPlan:
            epoch = min(window.epoch, window.epoch if end.first_epoch is None else end.first_epoch)
            used, seconds = max(limit.used, window.used), time.monotonic() - begun
            return task.with_last(epoch=epoch, used=used, seconds=seconds, **more)

        try:
            with hooks.follow(self._stage, config) as tracker:
                run_training(
                    first,
                    trackers=(limit, deadline, end, *(() if tracker is None else (tracker,))),
                    notes=hooks.notes,
                    opened=limit.open_data,
                    stopping=end.stopping,
                    checks=(limit.check,),
                    under=StepSettings(config, changed, self._asked.identity),
                )
        except (MemoryExceeded, OutOfMemory):
            hooks.notes(f"{self._stage.name}: plan {window.row} has exceeded the memory limit")
            exceeded = task.plan.exceeded(max(limit.used, limits.memory), window.row)
            return replace(kept_last(ended=EXCEEDED), plan=exceeded)
        except (KeyboardInterrupt, Terminated):
            if not end.is_over:
                self._kept(kept_last())
                raise
            ended = OVER
        return self._with_gain(kept_last(ended=DEADLINE if deadline.is_over else ended))

    def _settings(self, row: int, task: TaskPlan) -> Config:
        """The configuration of the run under a row."""
        config = resolve(self._base, {**self._overrides, **task.plan.rows[row].settings}).config
        resume = (self._folder / IDENTITY).exists()
        return config.model_copy(update={"run_dir": str(self._folder), "resume": resume})

    def _limit(self) -> MemoryLimit:
        return MemoryLimit(
            self._asked.limits.memory, pick_device(self._sequence.config(self._stage).config.device)
        )

    @property
    def _accuracies(self) -> list[float]:
        """Validation top-1 after each epoch, 0 to 1; not a number where nothing is validated."""
        if not (self._folder / IDENTITY).exists():
            return []
        epochs = load_run(self._folder).metrics
        return [float(each.get("valid", {}).get("val/top1", math.nan)) / 100 for each in epochs]

    def _with_gain(self, task: TaskPlan) -> TaskPlan:
        """The task with the gain of its last window, if that has an epoch."""
        window, accuracies = task.windows[-1], self._accuracies
        before = accuracies[window.epoch - 1] if window.epoch else task.before
        if not self._asked.probe or before is None or len(accuracies) <= window.epoch:
            return task
        gain = Gain(before, accuracies[-1], window.seconds, task.images)
        means = updated(task.means, task.plan.rows[window.row].learning, gain)
        return replace(task.with_last(gain=gain), means=means)

    def _with_epochs(self, task: TaskPlan) -> TaskPlan:
        """The task, if an epoch was finished.

        Raises:
            UserError: none was; the same call then has the whole time again.
        """
        if self._accuracies:
            return task
        self._before, self._since = 0.0, time.monotonic()
        self._kept(task.with_last(ended="", seconds=0.0))
        raise UserError(
            f"{self._stage.name}: the deadline of {self._asked.limits.deadline:.0f} s was over before its "
            "first epoch ended; the same command continues it for as long again, or give a longer one and "
            "another --out"
        )
