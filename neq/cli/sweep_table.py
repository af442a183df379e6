"""The progress of a sweep for the console: ended cells, running cells, counts, time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from optuna.trial import FrozenTrial
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from neq.sweeps import history
from neq.sweeps.history import CellState
from neq.sweeps.queue import CellQueue
from neq.sweeps.storage import SILENCE

ORDER = ("done", "stopped", "running", "waiting", "failed")
MOST_ROWS = 20


def overview(queue: CellQueue, states: Sequence[CellState], workers: int) -> RenderableType:
    """The running cells, and the progress of the sweep.

    Args:
        queue: of the sweep.
        states: of all its cells.
        workers: that run here.
    """
    running = [state for state in states if state.state == "running"]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, expand=False)
    table.add_column("cell", justify="right")
    table.add_column("values")
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column(queue.metric, justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for state in running[:MOST_ROWS]:
        assert state.trial is not None
        table.add_row(
            str(state.cell),
            escape(values_line(state.trial)),
            _epochs(state.trial),
            _figure(_latest(state.trial)),
            duration(_age(state.trial)),
        )
    lines = [counts(queue, states), *best_line(queue, states), *time_left(queue, states, workers)]
    return Group(table, *(escape(line) for line in lines)) if running else Group(*map(escape, lines))


def ended_line(queue: CellQueue, state: CellState) -> str:
    """The result of a cell, in one line."""
    assert state.trial is not None
    said = [f"cell {state.cell} {state.state}"]
    if state.state == "failed":
        said.append(state.reason)
    else:
        said.append(f"{queue.metric} {_figure(_value(state))}")
        if state.state == "stopped":
            said.append(f"after {len(state.trial.intermediate_values)} epochs")
    if (seconds := _seconds(state)) is not None:
        said.append(duration(seconds))
    return "  ".join([*said, values_line(state.trial)])


def counts(queue: CellQueue, states: Sequence[CellState]) -> str:
    """`12 cells: 3 done, 2 running, 7 waiting`."""
    found: Counter[str] = Counter(state.state for state in states)
    total = max(queue.size or 0, len(states))  # a search may have run more before its run_cap was lowered
    found["waiting"] += total - len(states)
    listed = ", ".join(f"{found[name]} {name}" for name in ORDER if found[name])
    endless = "" if queue.size is not None else ", no end (run_cap gives one)"
    return f"{total} cell{'' if total == 1 else 's'}: {listed or 'none yet'}{endless}"


def best_line(queue: CellQueue, states: Sequence[CellState]) -> list[str]:
    """The best cell so far."""
    values = [(value, state) for state in states if (value := _value(state)) is not None]
    if not values:
        return []
    value, state = (max if queue.maximize else min)(values, key=lambda pair: pair[0])
    assert state.trial is not None
    folder = state.trial.user_attrs.get(history.FOLDER)
    where = f" in {folder}" if folder else ""
    return [f"best {queue.metric}: {_figure(value)}, cell {state.cell}{where}"]


def time_left(queue: CellQueue, states: Sequence[CellState], workers: int) -> list[str]:
    """The estimated time left, from the cells that were trained."""
    seconds = [found for state in states if (found := _seconds(state)) is not None]
    left = (queue.size or 0) - sum(state.state in history.FINAL for state in states)
    running = [state.trial for state in states if state.state == "running" and state.trial is not None]
    hands = max(workers, len(running))
    if queue.size is None or not seconds or left <= 0 or hands == 0:
        return []
    mean = sum(seconds) / len(seconds)
    work = left * mean - sum(min(mean, _age(trial)) for trial in running)
    return [f"about {duration(max(work / hands, 0))} left, {duration(mean)} a cell"]


def failures(states: Sequence[CellState]) -> list[str]:
    """A line for every failed cell."""
    return [
        f"cell {state.cell} failed: {state.reason}  ({values_line(state.trial)})"
        for state in states
        if state.state == "failed" and state.trial is not None
    ]


def silences(states: Sequence[CellState], silence: Mapping[int, float]) -> list[str]:
    """A line for every running cell whose worker is silent: it, or its machine, was killed.

    Args:
        states: of the cells.
        silence: seconds since the last heartbeat, by number of a trial.
    """
    return [
        f"cell {state.cell}: no heartbeat for {silence[state.trial.number]:.0f} s, waits for a worker of "
        f"neq sweep  ({values_line(state.trial)})"
        for state in states
        if state.state == "running"
        and state.trial is not None
        and silence.get(state.trial.number, 0) > SILENCE
    ]


def values_line(trial: FrozenTrial) -> str:
    """The values that distinguish a cell: `manual_seed 42, scheme mbv2_scheme_1`."""
    values = trial.user_attrs.get(history.VALUES, {})
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def duration(seconds: float) -> str:
    """`8 s`, `3 min`, `2 h 10 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "null" if value is None else str(value)


def _epochs(trial: FrozenTrial) -> str:
    total = trial.user_attrs.get(history.EPOCHS)
    done = max(trial.intermediate_values, default=0)
    return "" if total is None else f"{done}/{total}"


def _latest(trial: FrozenTrial) -> float | None:
    found = trial.intermediate_values
    return found[max(found)] if found else None


def _value(state: CellState) -> float | None:
    """The metric of a cell that is done or stopped early."""
    if state.state not in ("done", "stopped") or state.trial is None or not state.trial.values:
        return None
    value = state.trial.values[0]
    return value if abs(value) != float("inf") else None


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _seconds(state: CellState) -> float | None:
    """Seconds that a cell took; None for a run that was done before."""
    if state.trial is None or not state.trial.intermediate_values:
        return None
    return state.trial.user_attrs.get(history.SECONDS)


def _age(trial: FrozenTrial) -> float:
    if trial.datetime_start is None:
        return 0.0
    return max((datetime.now() - trial.datetime_start).total_seconds(), 0.0)
