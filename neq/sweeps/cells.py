"""From a sweep to the runs it asks for: every cell of a grid as overrides, resolved as any run is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from neq.config import Config, find_config, read_yaml, resolve
from neq.sweeps.parameters import Choice, Drawn, Parameter
from neq.sweeps.sweep_file import Sweep
from neq.utils.errors import UserError, shown

MAX_CELLS = 10_000
GRID_DISTRIBUTIONS = ("int_uniform", "q_uniform")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Args:
        number: from 1, in the order in which W&B asks for the cells.
        values: what the sweep says, by leaf or path.
        config: what that comes to.
        notes: what gave way on the way to it.
    """

    number: int
    values: Mapping[str, object]
    config: Config
    notes: tuple[str, ...]


def grid_size(sweep: Sweep) -> int:
    """How many cells a grid has; `run_cap` is no part of it.

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
    """Every cell of a grid, resolved by the schema of any run.

    Raises:
        UserError: naming the first cell that is not valid, with its values.
    """
    assert sweep.method == "grid"
    size, file = grid_size(sweep), _file(sweep)
    found = []
    for number, values in enumerate(grid(sweep), 1):
        said = _said(sweep, values)
        found.append(_cell(sweep, file, number, values, f"cell {number} of {size}{said}"))
    return tuple(found)


def check_search(sweep: Sweep) -> None:
    """Resolves what a random or bayes search may draw: every value and end of a range, one at a time.

    Raises:
        UserError: naming the first values that are not valid.
    """
    assert sweep.method != "grid"
    file = _file(sweep)
    likely = {name: _likely(parameter) for name, parameter in sweep.parameters.items()}
    first = {name: values[0] for name, values in likely.items()}
    for name, values in likely.items():
        for value in values:
            tried = first | {name: value}
            _cell(sweep, file, 0, tried, f"a run{_said(sweep, tried)}")


def _file(sweep: Sweep) -> dict[str, object]:
    """The file that the command starts from."""
    return read_yaml(find_config(sweep.options.config_file))


def _cell(
    sweep: Sweep, file: Mapping[str, object], number: int, values: Mapping[str, object], called: str
) -> Cell:
    try:
        resolved = resolve(file, {**sweep.options.overrides, **values})
    except UserError as error:
        raise UserError(f"{called}: {error}") from None
    return Cell(number, values, resolved.config, resolved.notes)


def varying(sweep: Sweep) -> list[str]:
    """The names of the parameters that take more than one value, sorted."""
    return [
        name
        for name, parameter in sorted(sweep.parameters.items())
        if isinstance(parameter, Drawn) or len(parameter.values) > 1
    ]


def _said(sweep: Sweep, values: Mapping[str, object]) -> str:
    """The values that tell a cell from the others, as an error line shows them."""
    listed = ", ".join(f"{name}: {shown(values[name])}" for name in varying(sweep))
    return f" ({listed})" if listed else ""


def _count(name: str, parameter: Parameter) -> int:
    if isinstance(parameter, Choice):
        if parameter.probabilities is not None:
            raise UserError(f"parameters.{name}.probabilities mean nothing in a grid; use method: random")
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
            f"parameters.{name}: q_uniform leaves its max out, so there is no value from {least} on"
        )
    return math.ceil(min((most - least) / parameter.numbers["q"], 10 * MAX_CELLS))


def _values(parameter: Parameter) -> tuple[object, ...]:
    """What a grid takes from a parameter; W&B leaves the end of q_uniform out."""
    if isinstance(parameter, Choice):
        return parameter.values
    numbers, count = parameter.numbers, _count("", parameter)
    return tuple(numbers["min"] + at * numbers.get("q", 1) for at in range(count))


def _likely(parameter: Parameter) -> tuple[object, ...]:
    """Values that a search may well draw: all of a list; ends and inside of a range; around a mean."""
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
    """A point of the range or mean that the file states, as the value that comes of it."""
    if name.endswith("_values"):
        return point
    if name.startswith("inv_"):
        return math.exp(-point)
    return math.exp(point) if "log_" in name else point
