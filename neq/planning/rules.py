"""The rule engine: which configurations a device can run, and which of those are worth it.

- R1: the predicted peak is within the memory limit.
- R2: the predicted time is within the deadline.
- R3: of two that learn the same, one that needs neither more memory nor more time replaces the other.
- R4: what is too large by R1 is so with a larger micro-batch or more neurons too, all else equal. More
  segments are not monotone.
- R5: a micro-batch is a multiple of the ghost batch that divides the batch (`NormRule.admits`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from neq.planning.configurations import Configuration, Learning, Space
from neq.utils.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """What a configuration is predicted to need.

    Args:
        peak: bytes that training adds to the process at most.
        seconds: of the whole run.
        cuts: layers that its segments begin at.
    """

    peak: int
    seconds: float
    cuts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What a run may need.

    Args:
        memory: bytes that training adds to the process.
        deadline: seconds; infinite: any.

    Raises:
        UserError: one that is not above 0.
    """

    memory: int
    deadline: float = math.inf

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise UserError(f"a memory limit of {self.memory} bytes is not allowed; give a size, as 256MiB")
        if not self.deadline > 0:
            raise UserError(f"a deadline of {self.deadline:g} s is not allowed; give a time, as 10min")


@dataclass(frozen=True)
class Row:
    """A configuration as it was judged.

    Args:
        configuration: what was judged.
        estimate: None: not made, since one that needs less is too large.
        rule: that strikes it; empty: it survives.
        by: the configuration that makes the rule do so, under R3 and R4.
    """

    configuration: Configuration
    estimate: Estimate | None
    rule: str = ""
    by: Configuration | None = None


def judge(
    configurations: Sequence[Configuration],
    estimate: Callable[[Configuration], Estimate],
    limits: Limits,
    batch_size: int,
) -> list[Row]:
    """Strikes what the limits exclude, and what another one replaces.

    Args:
        configurations: in the order of the rows.
        estimate: called as rarely as R4 allows.
        limits: of the run.
        batch_size: images of a step.
    """
    rows: dict[Configuration, Row] = {}
    too_large: list[Configuration] = []
    for each in sorted(configurations, key=lambda one: (one.learning.share or 0, one.micro_batch)):
        smaller = next((one for one in too_large if _needs_less(one, each, batch_size)), None)
        if smaller is not None:
            rows[each] = Row(each, None, "R4", smaller)
            continue
        found = estimate(each)
        rule = ""
        if found.peak > limits.memory:
            too_large.append(each)
            rule = "R1"
        elif found.seconds > limits.deadline:
            rule = "R2"
        rows[each] = Row(each, found, rule)
    replaced = {row.configuration: row for row in _without_replaced(rows.values())}
    return [replaced[each] for each in configurations]


def choose(rows: Sequence[Row], space: Space) -> list[Row]:
    """The survivors, the preferred first: by what they learn in the order of the space, then the fastest.

    Args:
        rows: as judged.
        space: of the configurations.
    """
    order = {learning: number for number, learning in enumerate(space.learnings)}

    def preference(row: Row) -> tuple[int, float, int]:
        assert row.estimate is not None
        return order[row.configuration.learning], row.estimate.seconds, row.estimate.peak

    return sorted((row for row in rows if not row.rule), key=preference)


def check_any(rows: Sequence[Row], limits: Limits) -> None:
    """Checks that one survives.

    Raises:
        UserError: none; the message names the least that one needs.
    """
    if any(not row.rule for row in rows):
        return
    if not rows:
        raise UserError("no configuration is left: take a ghost_batch_size that divides the micro_batch_size")
    made = [row.estimate for row in rows if row.estimate is not None]
    fitting = [each for each in made if each.peak <= limits.memory]
    if not fitting:
        least = min(each.peak for each in made)
        raise UserError(
            f"a memory limit of {_mib(limits.memory)} is less than the {_mib(least)} that the smallest plan "
            "needs; raise it, or take smaller images or another network"
        )
    fastest = min(each.seconds for each in fitting)
    raise UserError(
        f"a deadline of {limits.deadline:.0f} s is less than the {fastest:.0f} s "
        f"that the fastest plan within {_mib(limits.memory)} takes; raise it, or take fewer --n_epochs"
    )


def _needs_less(one: Configuration, other: Configuration, batch_size: int) -> bool:
    """R4: whether one configuration needs no more memory than another one."""
    mine, theirs = one.learning, other.learning
    same = (mine.norm_rule, mine.saved_precision, one.segments, one.memory)
    if same != (theirs.norm_rule, theirs.saved_precision, other.segments, other.memory):
        return False
    # A whole batch has no gradients that add up during its forward pass.
    whole = (one.micro_batch == batch_size, other.micro_batch == batch_size)
    is_ordered = one.micro_batch <= other.micro_batch and whole[0] == whole[1]
    return is_ordered and (mine.share or 0) <= (theirs.share or 0)


def _without_replaced(judged: Iterable[Row]) -> list[Row]:
    """R3: strikes the rows that another one of the same learning replaces; of equal ones the first stays."""
    rows = sorted(judged, key=lambda row: (row.configuration.segments, row.configuration.memory))
    best: dict[Learning, list[Row]] = {}
    found = []
    for row in sorted(rows, key=_needs):
        kept = best.setdefault(row.configuration.learning, [])
        by = None if row.rule else next((one for one in kept if _replaces(one, row)), None)
        if by is not None:
            row = Row(row.configuration, row.estimate, "R3", by.configuration)
        elif not row.rule:
            kept.append(row)
        found.append(row)
    return found


def _needs(row: Row) -> tuple[float, float]:
    """Memory and time, for an order in which no row comes before one that replaces it."""
    return (math.inf, math.inf) if row.estimate is None else (row.estimate.peak, row.estimate.seconds)


def _replaces(one: Row, other: Row) -> bool:
    mine, theirs = _needs(one), _needs(other)
    return mine[0] <= theirs[0] and mine[1] <= theirs[1]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
