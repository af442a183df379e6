"""The `parameters` of a sweep file: lists of values and distributions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from neq.utils.errors import UserError, shown, unknown_name

RANGE = ("min", "max")
# Distribution -> the numbers that it takes; those in DEFAULTS may be left out.
DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "int_uniform": RANGE,
    "uniform": RANGE,
    "q_uniform": (*RANGE, "q"),
    "log_uniform": RANGE,
    "log_uniform_values": RANGE,
    "inv_log_uniform": RANGE,
    "inv_log_uniform_values": RANGE,
    "q_log_uniform": (*RANGE, "q"),
    "q_log_uniform_values": (*RANGE, "q"),
    "normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"),
    "log_normal": ("mu", "sigma"),
    "q_log_normal": ("mu", "sigma", "q"),
    "beta": ("a", "b"),
    "q_beta": ("a", "b", "q"),
}
DEFAULTS: Mapping[str, float] = {"q": 1, "mu": 0, "sigma": 1, "a": 1, "b": 1}
CHOICES: Mapping[str, str] = {
    "constant": "value",
    "categorical": "values",
    "categorical_w_probabilities": "values",
}
# Numbers that must be greater than 0.
POSITIVE = ("q", "sigma", "a", "b")
# Beyond it e^x overflows, and so does e^(mu + sigma) at twice as much.
EXPONENTS, MOST_EXPONENT = ("min", "max", "mu", "sigma"), 350


@dataclass(frozen=True)
class Choice:
    """One of a few values; one value alone is a constant.

    Args:
        values: each once, in the order of the file.
        probabilities: of the values, summing to 1; None: all are equally likely.
    """

    values: tuple[object, ...]
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Drawn:
    """A number drawn from a distribution, with W&B's names and definitions.

    Args:
        distribution: a key of DISTRIBUTIONS.
        numbers: its parameters, with defaults filled in. Of `log_uniform`, min and max are exponents of e, of
            `log_uniform_values` the values themselves.
    """

    distribution: str
    numbers: Mapping[str, float]


Parameter = Choice | Drawn


def read_parameters(given: object, key: str = "parameters") -> dict[str, Parameter]:
    """Reads the parameters, by their dotted paths: a nested `parameters` is a section.

    Args:
        given: the mapping of the file.
        key: its path in the file.

    Raises:
        UserError: the first mistake, with its key; the caller adds the name of the file.
    """
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"{key} {shown(given)} is not allowed: at least one parameter is expected")
    found: dict[str, Parameter] = {}
    for name, value in given.items():
        here = f"{key}.{name}"
        if not isinstance(value, Mapping):
            raise UserError(f"{here} {shown(value)} is not allowed: write {{value: {shown(value)}}}")
        if "parameters" not in value:
            found[str(name)] = _read(value, here)
            continue
        if len(value) > 1:
            raise UserError(f"{here} has parameters and {_first_other(value)!r} beside it; give one of them")
        inner = read_parameters(value["parameters"], f"{here}.parameters")
        found |= {f"{name}.{path}": parameter for path, parameter in inner.items()}
    return found


def _same(value: object) -> str:
    """A text that is the same for values that W&B treats as equal: 3 and 3.0 are, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, default=str)


def _first_other(value: Mapping[str, object]) -> str:
    return next(str(name) for name in value if name != "parameters")


def _read(value: Mapping[str, object], here: str) -> Parameter:
    distribution = _distribution(value, here)
    if distribution in CHOICES:
        return _choice(value, distribution, here)
    wanted = DISTRIBUTIONS[distribution]
    _check_keys(value, wanted, distribution, here)
    numbers = {}
    for name in wanted:
        if name not in value and name not in DEFAULTS:
            raise UserError(f"{here}: {name} is missing; {distribution} takes {', '.join(wanted)}")
        number = value.get(name, DEFAULTS.get(name))
        _check_number(number, distribution, f"{here}.{name}")
        assert isinstance(number, int | float)
        if name in POSITIVE and number <= 0:
            raise UserError(f"{here}.{name} {shown(number)} is not allowed: it must be greater than 0")
        if name in EXPONENTS and _of_exponents(distribution) and abs(number) > MOST_EXPONENT:
            raise UserError(f"{here}.{name} {shown(number)} is not allowed: it is an exponent of e")
        numbers[name] = number
    if "min" in numbers:
        _check_range(numbers["min"], numbers["max"], distribution, here)
    return Drawn(distribution, numbers)


def _of_exponents(distribution: str) -> bool:
    return "log_" in distribution and not distribution.endswith("_values")


def _distribution(value: Mapping[str, object], here: str) -> str:
    """The distribution that is named, or that W&B infers from the keys."""
    named = value.get("distribution")
    if named is not None:
        if str(named) not in DISTRIBUTIONS and str(named) not in CHOICES:
            raise unknown_name(f"{here}.distribution", str(named), [*DISTRIBUTIONS, *CHOICES])
        return str(named)
    if "value" in value and "values" in value:
        raise UserError(f"{here} has both value and values; give one of them")
    if "value" in value:
        return "constant"
    if "values" in value:
        return "categorical"
    if "min" in value and "max" in value:
        return "int_uniform" if all(type(value[name]) is int for name in RANGE) else "uniform"
    if value and not set(value) & {"min", "max", "distribution"}:
        raise unknown_name(f"key of {here}", str(next(iter(value))), ["value", "values", "min", "max"])
    raise UserError(f"{here} is not complete: give value, values, min and max, or a distribution")


def _check_keys(value: Mapping[str, object], wanted: tuple[str, ...], distribution: str, here: str) -> None:
    for name in value:
        if name not in ("distribution", *wanted):
            raise UserError(f"{here}.{name} is not allowed: {distribution} takes {', '.join(wanted)}")


def _check_number(number: object, distribution: str, here: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise UserError(f"{here} {shown(number)} is not allowed: a number is expected")
    if distribution == "int_uniform" and not isinstance(number, int):
        raise UserError(f"{here} {shown(number)} is not allowed: an integer is expected (or take uniform)")


def _check_range(least: float, most: float, distribution: str, here: str) -> None:
    if least > most:
        raise UserError(f"{here}: min {least} is greater than max {most}; exchange them")
    if "log_uniform_values" in distribution and least <= 0:
        raise UserError(f"{here}.min {least} is not allowed: {distribution} needs values greater than 0")


def _choice(value: Mapping[str, object], distribution: str, here: str) -> Choice:
    key = CHOICES[distribution]
    wanted = (key,) if key == "value" else (key, "probabilities")
    _check_keys(value, wanted, distribution, here)
    if key not in value:
        raise UserError(f"{here}: {key} is missing; {distribution} takes {', '.join(wanted)}")
    if key == "value":
        return Choice((value["value"],))
    values = value["values"]
    if not isinstance(values, list) or not values:
        raise UserError(f"{here}.values {shown(values)} is not allowed: values are expected, as [1, 2]")
    probabilities = value.get("probabilities")
    if probabilities is not None:
        return Choice(tuple(values), _probabilities(probabilities, len(values), f"{here}.probabilities"))
    once: dict[str, object] = {}
    for item in values:
        once.setdefault(_same(item), item)
    return Choice(tuple(once.values()))


def _probabilities(given: object, count: int, here: str) -> tuple[float, ...]:
    if not isinstance(given, list) or len(given) != count:
        raise UserError(f"{here} {shown(given)} is not allowed: a list of {count} is expected, one per value")
    for share in given:
        _check_number(share, "categorical", here)
        if share < 0:
            raise UserError(f"{here} {shown(share)} is not allowed: it must be 0 or more")
    if not math.isclose(sum(given), 1, abs_tol=1e-6):
        raise UserError(f"{here} add up to {sum(given):g}; they must add up to 1")
    return tuple(map(float, given))
