"""A sweep file in W&B's own format: read, checked, frozen."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from neq.config import read_yaml
from neq.config.explain import expected
from neq.experiment.experiment import Experiment, open_experiment, program_name
from neq.sweeps.parameters import Parameter, read_parameters
from neq.utils.errors import UserError, shown, unknown_name

# Each stands for the values of a cell, which reach its run whatever the form.
MACROS_OF_VALUES = (
    *("${args}", "${args_no_equals}", "${args_no_hyphens}", "${args_no_boolean_flags}"),
    *("${args_json}", "${args_json_file}"),
)
MACROS = ("${env}", "${interpreter}", "${program}", *MACROS_OF_VALUES)
ENVIRONMENT_MACRO = re.compile(r"\$\{envvar:([^}]*)\}")
Text = Annotated[str, Field(min_length=1)]
Word = Annotated[Text, BeforeValidator(lambda word: str(word) if type(word) in (int, float) else word)]
Count = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, Field(strict=True)]


class Section(BaseModel):
    """A section of a sweep file: frozen, unknown keys refused, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SweepMetric(Section):
    """What the sweep optimizes; W&B minimizes where the file names no goal."""

    name: Text
    goal: Literal["minimize", "maximize"] = "minimize"
    target: Number | None = None
    impute: Literal["latest", "best", "worst"] = "worst"
    impute_while_running: Literal["latest", "best", "worst", "false"] = "false"


class EarlyTerminate(Section):
    """Hyperband: the epochs after which a run that lags behind is stopped.

    Source: W&B's documentation, "early_terminate"; its package `sweeps` for the rounding.
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

    def bands(self) -> Iterator[int]:
        """The epochs, ascending: int(max_iter / eta^i), i = s, ..., 1, or int(min_iter * eta^i), i = 0, ...

        max_iter and s take precedence; a band below 1 is none.
        """
        if self.max_iter is not None and self.s is not None:
            bands: list[int] = []
            band = self.max_iter / self.eta
            while band >= 1 and len(bands) < self.s:
                bands.append(int(band))
                band /= self.eta
            yield from reversed(bands)
            return
        assert self.min_iter is not None
        yield from (int(self.min_iter * self.eta**power) for power in itertools.count())


class Sweep(Section):
    """A sweep.

    Args:
        program: names the experiment.
        parameters: by key (`n_epochs`) or path (`run_config.n_epochs`), in the order of the file.
        command: as the file has it; without one W&B passes every value as a flag.
        flags: those that the command passes to every run, beside the sweep's values.
        objective: the metric that a search optimizes and the status shows: the file's, where runs report
            it, else the experiment's first.
    """

    program: str
    method: Literal["grid", "random", "bayes"]
    parameters: Mapping[str, Parameter]
    metric: SweepMetric | None = None
    early_terminate: EarlyTerminate | None = None
    run_cap: Count | None = None
    command: tuple[Word, ...] | None = None
    name: Text | None = None
    description: str | None = None
    project: Text | None = None
    entity: Text | None = None
    flags: tuple[str, ...] = ()
    objective: SweepMetric | None = None

    def experiment(self) -> Experiment:
        """What the sweep runs, made anew from the flags.

        Raises:
            UserError: a flag is not allowed.
        """
        return open_experiment(self.program, self.flags)


def read_sweep(path: str | os.PathLike[str], config_file: str | None = None) -> Sweep:
    """Reads a sweep file; the configurations of its cells are checked by `cells` and `check_search`.

    Args:
        path: of the file; by the published code's name (`c10/c10_mbv2.yaml`) `c10/mbv2.yaml` is found too.
        config_file: the configuration that cells start from, unless the file's command names one.

    Raises:
        UserError: one line for the first mistake: file, key, what was given, what is allowed.
    """
    given = read_yaml(_without_folder_name(Path(path)))
    try:
        return _sweep(given, config_file)
    except UserError as error:
        raise UserError(f"file {shown(os.fspath(path))}: {error}") from None


def _without_folder_name(path: Path) -> Path:
    """The path, or where no file is there that without its folder's name in the file's name."""
    shorter = path.with_name(path.name.removeprefix(f"{path.parent.name}_")) if path.name else path
    return shorter if not path.exists() and shorter.exists() else path


def _sweep(given: Mapping[str, object], config_file: str | None) -> Sweep:
    known = [name for name in Sweep.model_fields if name not in ("flags", "objective")]
    for name in given:
        if name not in known:
            raise unknown_name("key", name, known)
    for name in ("program", "method", "parameters"):
        if given.get(name) is None:
            raise UserError(f"{name} is missing")
    program = program_name(given["program"])
    parameters = read_parameters(given["parameters"])
    present = {name: value for name, value in given.items() if value is not None}
    try:
        # Without its parameters, which are read above: pydantic would go through every union.
        sweep = Sweep.model_validate({**present, "parameters": {}})
    except ValidationError as error:
        raise _refusal(error) from None
    flags = [] if sweep.command is None else _flags(sweep.command, program)
    named = any(flag.replace("_", "-").startswith("--config-file") for flag in flags)
    if config_file is not None and not named:
        flags += ["--config-file", config_file]
    sweep = sweep.model_copy(update={"program": program, "parameters": parameters, "flags": tuple(flags)})
    experiment = sweep.experiment()
    experiment.check_parameters(tuple(parameters))
    _check_metric(sweep, experiment)
    return sweep.model_copy(update={"objective": _objective(sweep, experiment)})


def _refusal(error: ValidationError) -> UserError:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] in ("missing", "extra_forbidden"):
        section = ".".join(map(str, first["loc"][:-1]))
        return UserError(f"{section}: {expected(first)}")
    return UserError(f"{where} {shown(first['input'])} is not allowed: {expected(first)}")


def _flags(command: tuple[str, ...], program: str) -> list[str]:
    """The words of a command behind the program, without macros.

    Raises:
        UserError: a macro or an environment variable is unknown, or the program is missing.
    """
    command = tuple(ENVIRONMENT_MACRO.sub(_environment, token) for token in command)
    for token in command:
        if "${" in token and token not in MACROS:
            allowed = ", ".join((*MACROS, "${envvar:NAME}"))
            raise UserError(f"command {shown(token)} is not allowed; macros read here: {allowed}")
    programs = [at for at, token in enumerate(command) if token in ("${program}", program)]
    if not programs:
        raise UserError(f"command {shown(list(command))} has no ${{program}}; write [python3, ${{program}}]")
    return [token for token in command[programs[0] + 1 :] if token not in MACROS]


def _environment(found: re.Match[str]) -> str:
    """The value of the environment variable that a macro names."""
    value = os.environ.get(found[1])
    if value is None:
        raise UserError(f"command {found[0]!r}: the environment variable {found[1]!r} is not set; set it")
    return value


def _check_metric(sweep: Sweep, experiment: Experiment) -> None:
    """A search compares its runs by a metric that they report; bayes and early_terminate need one."""
    needs = sweep.early_terminate is not None or sweep.method == "bayes"
    if sweep.metric is None and needs:
        by = "method bayes" if sweep.method == "bayes" else "early_terminate"
        raise UserError(f"{by} needs a metric, as metric: {{name: {experiment.metrics[0]}, goal: maximize}}")
    is_compared = needs or sweep.method != "grid"
    if sweep.metric is not None and is_compared and sweep.metric.name not in experiment.metrics:
        raise unknown_name("metric.name", sweep.metric.name, experiment.metrics)


def _objective(sweep: Sweep, experiment: Experiment) -> SweepMetric:
    if sweep.metric is None or sweep.metric.name not in experiment.metrics:
        return SweepMetric(name=experiment.metrics[0], goal="maximize")
    return sweep.metric
