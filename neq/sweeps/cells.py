"""The cells of a sweep: every combination of a grid's values, resolved by its experiment."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neq.experiment.experiment import Experiment
from neq.sweeps.parameters import Choice, Drawn, Parameter
from neq.sweeps.sweep_file import Sweep, read_sweep
from neq.utils.errors import UserError, shown

MAX_CELLS = 10_000
GRID_DISTRIBUTIONS = ("int_uniform", "q_uniform")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Args:
        number: from 1, in the order in which W&B asks for the cells.
        values: of the sweep's parameters, by key or path.
        config: the complete configuration, of the experiment's own type.
        notes: of resolving it, for the user.
    """

    number: int
    values: Mapping[str, object]
    config: Any
    notes: tuple[str, ...]


def grid_size(sweep: Sweep) -> int:
    """The number of cells of a grid, whatever its `run_cap`.

    Raises:
        UserError: a parameter cannot be enumerated, or the grid has more than MAX_CELLS cells.
    """
    size = math.prod(_count(name, parameter) for name, parameter in sweep.parameters.items())
    if size > MAX_CELLS:
        raise UserError(f"the grid has more than {MAX_CELLS:,} cells; split it, or use method: random")
    return size


def grid(sweep: Sweep) -> Iterator[dict[str, object]]:
    """The values of every cell, as W&B enumerates them: parameters by name, the last one changes fastest.

    Source: the order of wandb's package `sweeps`, where names are sorted and repeated values count once.
    """
    names = sorted(sweep.parameters)
    for values in itertools.product(*(_values(sweep.parameters[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def cells(sweep: Sweep) -> tuple[Cell, ...]:
    """Every cell of a grid, resolved.

    Raises:
        UserError: a cell is not valid; the line shows its number and values.
    """
    assert sweep.method == "grid"
    size, experiment = grid_size(sweep), sweep.experiment()
    return tuple(
        _cell(experiment, number, values, f"cell {number} of {size}{_shown_values(sweep, values)}")
        for number, values in enumerate(grid(sweep), 1)
    )


def read_cells(path: Path, config_file: str | None = None) -> tuple[Sweep, tuple[Cell, ...]]:
    """A sweep file and the cells of its grid, none of a search; whatever it may ask for is checked.

    Args:
        path, config_file: as of `read_sweep`.

    Raises:
        UserError: as of `read_sweep`, `cells` and `check_search`, with the name of the file.
    """
    sweep = read_sweep(path, config_file)
    try:
        if sweep.method == "grid":
            return sweep, cells(sweep)
        check_search(sweep)
    except UserError as error:
        raise UserError(f"file {str(path)!r}: {error}") from None
    return sweep, ()


def check_search(sweep: Sweep) -> None:
    """Resolves what a random or bayes search may draw: every listed value and end of a range, one at a time.

    Raises:
        UserError: values are not valid; the line shows them.
    """
    assert sweep.method != "grid"
    experiment = sweep.experiment()
    likely = {name: _likely(parameter) for name, parameter in sweep.parameters.items()}
    first = {name: values[0] for name, values in likely.items()}
    for name, values in likely.items():
        for value in values:
            tried = first | {name: value}
            _cell(experiment, 0, tried, f"a run{_shown_values(sweep, tried)}")


def _cell(experiment: Experiment, number: int, values: Mapping[str, object], called: str) -> Cell:
    try:
        config, notes = experiment.resolve(values)
    except UserError as error:
        raise UserError(f"{called}: {error}") from None
    return Cell(number, values, config, notes)


def varying(sweep: Sweep) -> list[str]:
    """The names of the parameters that take more than one value, sorted."""
    return [
        name
        for name, parameter in sorted(sweep.parameters.items())
        if isinstance(parameter, Drawn) or len(parameter.values) > 1
    ]


def _shown_values(sweep: Sweep, values: Mapping[str, object]) -> str:
    """The values that distinguish a cell, for an error line."""
    listed = ", ".join(f"{name}: {shown(values[name])}" for name in varying(sweep))
    return f" ({listed})" if listed else ""


def _count(name: str, parameter: Parameter) -> int:
    if isinstance(parameter, Choice):
        if parameter.probabilities is not None:
            raise UserError(f"parameters.{name}.probabilities have no meaning in a grid; use method: random")
        return len(parameter.values)
    if parameter.distribution not in GRID_DISTRIBUTIONS:
        raise UserError(
            f"parameters.{name}: a grid cannot enumerate {parameter.distribution}; "
            f"give values, or {' or '.join(GRID_DISTRIBUTIONS)}, or use method: random"
        )
    least, most = parameter.numbers["min"], parameter.numbers["max"]
    if parameter.distribution == "int_uniform":
        return int(most - least) + 1
    if least == most:
        raise UserError(
            f"parameters.{name}: q_uniform excludes its max, so there is no value from {least} on"
        )
    return math.ceil(min((most - least) / parameter.numbers["q"], 10 * MAX_CELLS))


def _values(parameter: Parameter) -> tuple[object, ...]:
    """The values of a parameter in a grid; as in W&B, q_uniform excludes its max."""
    if isinstance(parameter, Choice):
        return parameter.values
    numbers, count = parameter.numbers, _count("", parameter)
    return tuple(numbers["min"] + at * numbers.get("q", 1) for at in range(count))


def _likely(parameter: Parameter) -> tuple[object, ...]:
    """Values that a search may draw: all of a list; the ends and a point of a range; around a mean."""
    if isinstance(parameter, Choice):
        return parameter.values
    name, numbers = parameter.distribution, parameter.numbers
    if "min" in numbers:
        least, most = numbers["min"], numbers["max"]
    elif "mu" in numbers:
        least, most = numbers["mu"] - numbers["sigma"], numbers["mu"] + numbers["sigma"]
    else:
        least, most = 0.1, 0.9  # beta
    if name == "int_uniform":
        return (least, most)
    inside = least + (most - least) * 0.618
    points = [_transformed(name, point) for point in (inside, least, most)]
    if "q" in numbers:
        q = numbers["q"]
        points = [round(point / q) * q if math.isfinite(point / q) else point for point in points]
    return tuple(points)


def _transformed(name: str, point: float) -> float:
    """The value of a parameter at a point of the range, or near the mean, that the file states."""
    if name.endswith("_values"):
        return point
    if name.startswith("inv_"):
        return math.exp(-point)
    return math.exp(point) if "log_" in name else point
