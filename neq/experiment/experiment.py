"""What a sweep runs: the protocol of an experiment, and the registry that sweep files name one from.

A further experiment is a class that has these members, and one call of `register_experiment`; `neq sweep`
and `neq cells` then take sweep files whose `program` is its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any, Protocol

from neq.runs import RunLocation, SweepCell
from neq.utils.errors import UserError, shown

# Called with the number of finished epochs, of all epochs, and the metrics after the last one, by name; once
# with 0 and no metrics before the first. Returns whether to stop here.
Report = Callable[[int, int, Mapping[str, float]], bool]
Notes = Callable[[str], None]


class RunFailed(Exception):
    """A run failed by itself (its loss diverged, say); the process that ran it is sound."""


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Args:
        folder: of the run.
        metrics: after its last epoch, by name; a metric without a finite value is left out.
        stopped: whether it ended because its report asked it to.
        memory: peak bytes that it took, as `peak`, and on a GPU `device_peak`, `device_free` and
            `device_total`; empty where nothing was trained.
    """

    folder: Path
    metrics: Mapping[str, float]
    stopped: bool = False
    memory: Mapping[str, int] = field(default_factory=dict)


class Experiment(Protocol):
    """A program that sweep files name, with the flags that their `command` passes to every run.

    An experiment is made from these flags, and pickled to the workers of its sweep; listing cells makes one
    too, so that what takes long belongs into `run`.
    """

    @property
    def metrics(self) -> Sequence[str]:
        """Names of the metrics that every epoch reports; the first is the default of a search."""

    @property
    def base(self) -> str:
        """The name of the configuration that runs start from; empty where there is none."""

    @property
    def preload(self) -> Sequence[str]:
        """Modules that `run` imports, loaded once before workers are forked."""

    @property
    def settings(self) -> Mapping[str, object]:
        """What all runs share, as JSON values: where it changes, a new sweep begins."""

    def check_parameters(self, names: Sequence[str]) -> None:
        """Checks the names of a sweep's parameters against the flags.

        Raises:
            UserError: one is not allowed in a sweep, or is a flag of the command already.
        """

    def resolve(self, values: Mapping[str, object]) -> tuple[Any, tuple[str, ...]]:
        """The complete configuration of a run, and notes for the user.

        Args:
            values: of the sweep's parameters, by name.

        Raises:
            UserError: a value that is not allowed, in one line.
        """

    def identity(self, config: Any) -> Mapping[str, object]:
        """Every setting that can change a run's result, as JSON values: runs that share it are the same."""

    def find(self, config: Any, runs: Path) -> RunLocation:
        """Where a run lies, or would lie, and how far it is.

        Args:
            config: of the run.
            runs: folder of all runs.
        """

    def run(
        self, config: Any, runs: Path, report: Report, notes: Notes, cell: SweepCell | None = None
    ) -> RunResult:
        """Runs to the end, or resumes what is unfinished; a finished run is returned as it is.

        Args:
            config: of the run.
            runs: folder of all runs.
            report: called after every epoch.
            notes: called with lines for the log.
            cell: of the sweep that asks for the run, to be recorded with it.

        Raises:
            UserError: the run cannot be done with these settings.
            RunIsBusy: another process has the run.
            RunFailed: it failed by itself.
            KeyboardInterrupt, Terminated: a signal stopped it; another call resumes it.
        """


Open = Callable[[Sequence[str]], Experiment]

# Program -> module:name of what makes its experiment from flags; imported when it is used.
_PROGRAMS: dict[str, str] = {
    "train_classification.py": "neq.experiment.training_experiment:TrainingExperiment"
}


def register_experiment(program: str, place: str) -> None:
    """Adds an experiment.

    Args:
        program: its name in sweep files.
        place: `module:name` of what is called with the command's flags, a list of strings.
    """
    _PROGRAMS[program] = place


def programs() -> tuple[str, ...]:
    """The names that sweep files may give as `program`."""
    return tuple(_PROGRAMS)


def open_experiment(program: str, flags: Sequence[str]) -> Experiment:
    """The experiment of a program.

    Args:
        program: one of `programs()`.
        flags: that the command passes to every run.

    Raises:
        UserError: the program is unknown, or a flag is not allowed.
    """
    module, _, name = _PROGRAMS[program_name(program)].partition(":")
    opening: Open = getattr(import_module(module), name)
    return opening(flags)


def program_name(given: object) -> str:
    """The registered name of a program as a sweep file gives it (`./train_classification.py`).

    Raises:
        UserError: there is none.
    """
    if isinstance(given, str):
        for known in _PROGRAMS:
            if PurePath(given) == PurePath(known):
                return known
    raise UserError(f"program {shown(given)} is not allowed: write program: {' or '.join(_PROGRAMS)}")
