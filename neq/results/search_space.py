"""Whether a run may have come from a random or bayes sweep: its values lie in the space of the file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from neq.config import Config, find_config, parse_flags, read_yaml, resolve
from neq.config.keys import KEYS, find_key
from neq.runs.identity import plain_identity
from neq.sweeps import Choice, Drawn, Parameter, Sweep, check_search
from neq.utils.errors import UserError

# Of the values that a run may have come from; beyond it a file is not gone through.
MOST_COMBINATIONS = 1000
NEAR = 1e-9


class SearchSpace:
    """What a random or bayes sweep may draw.

    A run belongs when its drawn values lie within their ranges and the configuration that they come to,
    with the fixed and the listed ones, has the run's identity: whatever the file does not name is equal too.

    Args:
        sweep: of method random or bayes.

    Raises:
        UserError: what it may draw is not valid.
    """

    def __init__(self, sweep: Sweep) -> None:
        check_search(sweep)
        options = parse_flags(sweep.flags, "command")
        self._file = read_yaml(find_config(options.config_file))
        self._options = options.overrides
        self._drawn: dict[str, Drawn] = {}
        self._listed: dict[str, Choice] = {}
        for name, parameter in sweep.parameters.items():
            if isinstance(parameter, Drawn):
                self._drawn[name] = parameter
            else:
                self._listed[name] = parameter

    def config(self, settings: Mapping[str, Any], named: Mapping[str, Any]) -> Config | None:
        """The configuration that a run came from; none when it lies outside the space.

        Args:
            settings: of the run, leaf -> JSON value, complete.
            named: the same as its identity, without a fingerprint of images.
        """
        values: dict[str, object] = {}
        for name, parameter in self._drawn.items():
            leaf = _leaf(name)
            if not KEYS[leaf].is_identity:  # whatever it was, it is the same run
                continue
            values[name] = settings.get(leaf)
            if not _within(parameter, values[name]):
                return None
        listed = {name: _likely(choice, settings.get(_leaf(name))) for name, choice in self._listed.items()}
        combinations = itertools.product(*listed.values())
        for chosen in itertools.islice(combinations, MOST_COMBINATIONS):
            given = {**self._options, **values, **dict(zip(listed, chosen, strict=True))}
            try:
                config = resolve(self._file, given).config
            except UserError:
                continue
            if plain_identity(config) == named:
                return config
        return None


def _leaf(name: str) -> str:
    key = find_key(name)
    assert key is not None, "check_search has resolved it"
    return key.flat_name


def _likely(choice: Choice, value: object) -> tuple[object, ...]:
    """The listed values that a setting may have come from: that value, where it is listed as it is.

    A value may be listed in another spelling (16MiB, 36-39-40), or give way to another setting.
    """
    same = tuple(listed for listed in choice.values if type(listed) is type(value) and listed == value)
    return same or choice.values


def _within(parameter: Parameter, value: object) -> bool:
    """Whether a distribution gives a value; its ends belong to it, and so does what rounding adds to them."""
    assert isinstance(parameter, Drawn)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    name, numbers = parameter.distribution, parameter.numbers
    if name == "int_uniform" and value != int(value):
        return False
    least, most = _ends(name, numbers)
    q = numbers.get("q", 0)
    if q and abs(value / q - round(value / q)) > NEAR * max(1.0, abs(value / q)):
        return False
    slack = q / 2 + NEAR * max(abs(end) for end in (least, most, 0.0) if math.isfinite(end))
    return least - slack <= value <= most + slack


def _ends(name: str, numbers: Mapping[str, float]) -> tuple[float, float]:
    """The least and the largest value of a distribution."""
    plain = name.removeprefix("q_")
    if plain == "normal":
        return -math.inf, math.inf
    if plain == "log_normal":
        return 0.0, math.inf
    if plain == "beta":
        return 0.0, 1.0
    least, most = numbers["min"], numbers["max"]
    if plain == "log_uniform":
        return math.exp(least), math.exp(most)
    if plain == "inv_log_uniform":
        return math.exp(-most), math.exp(-least)
    return least, most
