"""The runs of sweep files, found by the configuration that each of them recorded."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from neq.config import Config, config_model
from neq.config.keys import nest
from neq.runs import run_folder
from neq.runs.identity import default_settings, plain_identity
from neq.runs.run_reader import Run, recorded_runs
from neq.sweeps import Sweep, cells, check_search, read_sweep
from neq.utils.errors import UserError, shown

SEED, IMAGES = "manual_seed", "data_fingerprint"
NO_RUN = "no run"
Files = Iterable[str | os.PathLike[str]]


def collect(
    sweep_files: Files, runs_dir: str | os.PathLike[str] = "runs", config_file: str | None = None
) -> list[Run]:
    """The runs of every cell of the sweep files, each once, in the order of the files and their cells.

    A random or bayes file has no list of cells: its runs are those that recorded it as their sweep.

    Args:
        sweep_files: in W&B's format; a folder stands for the runs in it, or is one.
        runs_dir: the folder of all runs, searched recursively; it need not exist.
        config_file: the configuration that cells start from unless their file's command names one.

    Raises:
        UserError: a sweep file is not valid, or a file or folder cannot be read.
    """
    files = [Path(file).expanduser() for file in sweep_files]
    found = {run_key(run): run for file in files if file.is_dir() for run in _runs_in(file)}
    sweeps = read_sweeps([file for file in files if not file.is_dir()], config_file)
    if sweeps:
        of_sweeps = match(sweeps, recorded_runs(Path(runs_dir).expanduser()), runs_dir)
        found = {**found, **{run_key(run): run for run in of_sweeps}}
    return list(found.values())


def _runs_in(folder: Path) -> list[Run]:
    """The runs in a folder, which may be one; those without an identity are left out.

    Raises:
        UserError: there are none.
    """
    found = recorded_runs(folder)
    if not any(run.identity for run in found):
        reason = f"{found[0].place}: {found[0].reason}" if found else "no run"
        raise UserError(f"folder {shown(str(folder))} holds {reason}; give a run's folder, or a sweep file")
    return [run for run in found if run.identity]


def read_sweeps(files: Files, config_file: str | None = None) -> dict[str, Sweep]:
    """The sweeps by the names of their files; `config_file` as of `collect`."""
    return {os.fspath(file): read_sweep(file, config_file) for file in files}


def match(
    sweeps: Mapping[str, Sweep], recorded: Sequence[Run], runs_dir: str | os.PathLike[str] = "runs"
) -> list[Run]:
    """The runs of the sweeps among those that were recorded; see `collect`.

    Args:
        sweeps: by their files.
        recorded: from any place; of several records of one run the most complete one counts, then the first.
        runs_dir: the folder that a cell's run is expected in.
    """
    records, found = _Records.of(recorded, runs_dir), dict[str, Run]()
    for called, sweep in sweeps.items():
        for run in records.of_sweep(called, sweep):
            found.setdefault(run_key(run), run)
    return _with_images(list(found.values()))


def started(
    sweeps: Mapping[str, Sweep], recorded: Sequence[Run], runs_dir: str | os.PathLike[str] = "runs"
) -> dict[str, Sweep]:
    """The sweeps of which a run exists, in whatever state.

    Args:
        sweeps, recorded, runs_dir: as of `match`.
    """
    records = _Records.of(recorded, runs_dir)
    return {
        called: sweep
        for called, sweep in sweeps.items()
        if any(run.state != "missing" for run in records.of_sweep(called, sweep))
    }


@dataclass(frozen=True)
class _Records:
    """Recorded runs, to find those of sweeps among them.

    Args:
        by_cell: by their identity without the images.
        unreadable: those without an identity, by their folder.
        runs_dir: the folder that a cell's run is expected in.
    """

    by_cell: Mapping[str, list[Run]]
    unreadable: Mapping[Path, Run]
    runs_dir: Path

    @classmethod
    def of(cls, recorded: Sequence[Run], runs_dir: str | os.PathLike[str]) -> _Records:
        """The records of runs from any place."""
        by_cell: defaultdict[str, list[Run]] = defaultdict(list)
        for one in recorded:
            if one.identity:
                by_cell[key_of(one.identity, IMAGES)].append(one)
        unreadable = {one.folder: one for one in recorded if not one.identity and one.folder is not None}
        return cls(dict(by_cell), unreadable, Path(runs_dir).expanduser())

    def of_sweep(self, called: str, sweep: Sweep) -> list[Run]:
        """The runs of a sweep's cells; a cell without one is missing.

        Raises:
            UserError: a cell is not valid; with the name of the sweep's file, `called`.
        """
        try:
            named = _grid(sweep) if sweep.method == "grid" else _drawn(sweep, Path(called).stem, self.by_cell)
        except UserError as error:
            raise UserError(f"file {shown(called)}: {error}") from None
        return [run for identity, config in named for run in self._of_cell(identity, config)]

    def _of_cell(self, identity: Mapping[str, Any], config: Config | None) -> list[Run]:
        found = _once(self.by_cell.get(key_of(identity, IMAGES), []))
        if found:
            return found
        lost = None
        if config is not None and self.unreadable:
            lost = self.unreadable.get(self.runs_dir / run_folder(config))
        return [replace(lost, identity=identity) if lost else Run(identity, "missing", NO_RUN)]


Wanted = tuple[Mapping[str, Any], Config | None]  # the identity of a run, and its cell's configuration


def _grid(sweep: Sweep) -> list[Wanted]:
    return [(plain_identity(cell.config), cell.config) for cell in cells(sweep)]


def _drawn(sweep: Sweep, stem: str, by_cell: Mapping[str, list[Run]]) -> list[Wanted]:
    """The runs that a search drew: those that recorded its name, and W&B's."""
    from neq.sweeps.queue import sweep_name  # imports optuna

    check_search(sweep)
    every = [one for same in by_cell.values() for one in same]
    names = {asked.sweep for one in every if one.url is not None for asked in one.sweeps}
    names.add(sweep_name(sweep, stem, sweep.experiment().settings))
    drawn = [one for one in every if any(asked.sweep in names for asked in one.sweeps)]
    return [(one.identity, None) for one in drawn if _is_valid(one.identity)]


def _is_valid(named: Mapping[str, Any]) -> bool:
    """Whether an identity is that of a configuration; that of a grid's cell always is."""
    # Weights are recorded as a hash of their file, and the images are no setting.
    settings = {name: value for name, value in named.items() if name not in ("weights", IMAGES)}
    try:
        config = config_model().model_validate(nest(settings))
    except (ValidationError, KeyError):
        return False
    return plain_identity(config) == settings


def _once(recorded: Sequence[Run]) -> list[Run]:
    """One run for each set of images: its most complete record."""
    by_images: dict[str, list[Run]] = {}
    known = {one.identity[IMAGES] for one in recorded if IMAGES in one.identity}
    for one in recorded:
        # W&B and config.yaml do not identify the images: assume those of the other records if they agree.
        if len(known) == 1 and (one.url is not None or one.state == "damaged"):
            one = replace(one, identity={**one.identity, IMAGES: next(iter(known))})
        by_images.setdefault(key_of(one.identity), []).append(one)
    states = ("done", "unfinished", "damaged")
    found = []
    for same in by_images.values():
        best, *others = sorted(same, key=lambda one: states.index(one.state))
        found.append(replace(best, copies=tuple(one.place for one in others)))
    return found


def _with_images(runs: list[Run]) -> list[Run]:
    """Missing runs join the seeds that exist: they get the same images if those are known and agree."""
    images: defaultdict[str, set[str]] = defaultdict(set)
    for run in runs:
        if IMAGES in run.identity:
            images[key_of(run.identity, SEED, IMAGES)].add(run.identity[IMAGES])
    whole = []
    for run in runs:
        known = images.get(key_of(run.identity, SEED, IMAGES), set())
        if len(known) == 1:
            run = replace(run, identity={IMAGES: next(iter(known)), **run.identity})
        whole.append(run)
    return whole


def settings_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of an identity, or of one without its seed, defaults filled in: leaf -> JSON value."""
    return {**default_settings(), **named}


def run_key(run: Run) -> str:
    """The text that identifies a run: its settings and its seed as JSON."""
    return key_of(run.identity)


def key_of(named: Mapping[str, Any], *without: str) -> str:
    """Settings as a canonical text, which is equal for equal settings.

    Args:
        named: JSON values by name.
        without: the names of settings to leave out.
    """
    return json.dumps({name: named[name] for name in named if name not in without}, sort_keys=True)
