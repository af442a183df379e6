"""A sweep file in W&B's own format: read, checked, frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neq.config import Options, parse_flags, read_yaml
from neq.config.explain import expected
from neq.config.keys import find_key
from neq.sweeps.parameters import Parameter, read_parameters
from neq.utils.errors import UserError, shown, unknown_name

PROGRAM = "train_classification.py"
MACROS = ("${env}", "${interpreter}", "${program}", "${args}")
# What every run logs once an epoch and a search can go by.
METRICS = (
    *("train.train/top1", "train.train/loss", "valid.val/top1", "valid.val/loss", "valid.val/best"),
    *("test.test/top1", "test.test/loss", "test.test/best", "test.test/top1_at_valid_best"),
)
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, Field(strict=True)]


class Part(BaseModel):
    """A part of a sweep file: frozen, unknown keys refused, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(Part):
    """What the sweep is after; W&B minimizes where the file does not say."""

    name: Text
    goal: Literal["minimize", "maximize"] = "minimize"
    target: Number | None = None
    impute: Literal["latest", "best", "worst"] = "worst"
    impute_while_running: Literal["latest", "best", "worst", "false"] = "false"


class EarlyTerminate(Part):
    """Hyperband: which epochs a run that lags behind is stopped at.

    Brackets are at min_iter, min_iter * eta, min_iter * eta^2, ..., or `s` of them back from max_iter.
    """

    type: Literal["hyperband"]
    min_iter: Count | None = None
    max_iter: Count | None = None
    s: Count | None = None
    eta: Annotated[float, Field(gt=1, strict=True)] = 3
    strict: bool = True

    @model_validator(mode="after")
    def _has_brackets(self) -> EarlyTerminate:
        if self.min_iter is None and (self.max_iter is None or self.s is None):
            raise ValueError("give min_iter, or max_iter and s")
        return self


class Sweep(Part):
    """A sweep.

    Args:
        parameters: by leaf (`n_epochs`) or path (`run_config.n_epochs`), in the order of the file.
        command: as the file has it; none is W&B's own, which passes every value as a flag.
        options: the flags that the command gives beside the sweep's values, the same for every run.
    """

    program: str
    method: Literal["grid", "random", "bayes"]
    parameters: Mapping[str, Parameter]
    metric: Metric | None = None
    early_terminate: EarlyTerminate | None = None
    run_cap: Count | None = None
    command: tuple[Text, ...] | None = None
    name: Text | None = None
    description: str | None = None
    project: Text | None = None
    entity: Text | None = None
    options: Options = Options()


def read_sweep(path: str | os.PathLike[str]) -> Sweep:
    """The sweep that a file describes; what its cells come to is checked by `cells` and `check_search`.

    Raises:
        UserError: one line for the first mistake: file, key, what was given, what is allowed.
    """
    given = read_yaml(path)
    try:
        return _sweep(given)
    except UserError as error:
        raise UserError(f"file {shown(os.fspath(path))}: {error}") from None


def _sweep(given: Mapping[str, object]) -> Sweep:
    known = [name for name in Sweep.model_fields if name != "options"]
    for name in given:
        if name not in known:
            raise unknown_name("key", name, known)
    for name in ("program", "method", "parameters"):
        if given.get(name) is None:
            raise UserError(f"{name} is missing")
    _check_program(given["program"])
    parameters = read_parameters(given["parameters"])
    present = {name: value for name, value in given.items() if value is not None}
    try:
        # Without its parameters, which are read above: pydantic would go through every union.
        sweep = Sweep.model_validate({**present, "parameters": {}})
    except ValidationError as error:
        raise _refusal(error) from None
    options = _options(sweep, parameters)
    sweep = sweep.model_copy(update={"parameters": parameters, "options": options})
    _check_metric(sweep)
    return sweep


def _refusal(error: ValidationError) -> UserError:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] in ("missing", "extra_forbidden"):
        section = ".".join(map(str, first["loc"][:-1]))
        return UserError(f"{section}: {expected(first)}")
    return UserError(f"{where} {shown(first['input'])} is not allowed: {expected(first)}")


def _check_program(program: object) -> None:
    if not isinstance(program, str) or PurePath(program) != PurePath(PROGRAM):
        raise UserError(f"program {shown(program)} is not allowed: write program: {PROGRAM}")


def _options(sweep: Sweep, parameters: Mapping[str, Parameter]) -> Options:
    """The flags that stand in the command behind the program."""
    taken = {key.flat_name for path in parameters if (key := find_key(path))}
    options = Options()
    if sweep.command is not None:
        options = parse_flags(_flags(sweep.command), "command")
    for name in ("run_dir", "resume"):
        if name in taken or name in options.overrides:
            raise UserError(f"{name} is not allowed in a sweep: every cell has a folder of its own")
    for name in options.overrides:
        if name in taken:
            raise UserError(f"{name} stands in command and in parameters; give it once")
    return options


def _flags(command: tuple[str, ...]) -> list[str]:
    for token in command:
        if "${" in token and token not in MACROS:
            raise UserError(f"command {shown(token)} is not allowed; macros read here: {', '.join(MACROS)}")
    programs = [at for at, token in enumerate(command) if token in ("${program}", PROGRAM)]
    if not programs:
        raise UserError(f"command {shown(list(command))} has no ${{program}}; write [python3, ${{program}}]")
    return [token for token in command[programs[0] + 1 :] if token != "${args}"]


def _check_metric(sweep: Sweep) -> None:
    """A search that goes by a metric needs one that the runs log."""
    by = "method bayes" if sweep.method == "bayes" else "early_terminate"
    if sweep.method != "bayes" and sweep.early_terminate is None:
        return
    if sweep.metric is None:
        raise UserError(f"{by} needs a metric, as metric: {{name: valid.val/best, goal: maximize}}")
    if sweep.metric.name not in METRICS:
        raise unknown_name("metric.name", sweep.metric.name, METRICS)
