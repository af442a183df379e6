"""The runs of sweep files, found by the configuration that each of them recorded."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from neq.config import Config, config_model
from neq.config.keys import nest
from neq.runs import run_folder
from neq.runs.environment import Environment
from neq.runs.identity import default_settings, plain_identity
from neq.runs.run_reader import Recorded, recorded_runs
from neq.sweeps import Sweep, cells, check_search, read_sweep
from neq.utils.errors import UserError, shown

SEED, IMAGES = "manual_seed", "data_fingerprint"
NO_RUN = "no run"
Files = Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Run:
    """A run of a sweep, or a cell without a run.

    Args:
        folder: of the run; none: there is no run, or it is on W&B.
        values: the settings that identify it, without its seed and without defaults: leaf -> JSON value.
        seed: of the run.
        config: every setting that can change its result, defaults included: leaf -> JSON value. manual_seed
            is one of them, data_fingerprint where images are files; device, root, ... are not.
        state: "unfinished": started, without a summary; "missing": not started; "damaged": unreadable.
        reason: why it is not done, in one line; empty when it is.
        summary: as in summary.json, when it is done.
        epochs: number of epochs that it recorded.
        url: of the run on W&B, if it was read from there.
        copies: further places that hold the same run.
        environments: that computed it, in their order; several where it was resumed in another one.
    """

    folder: Path | None
    values: Mapping[str, Any]
    seed: int
    config: Mapping[str, Any]
    state: Literal["done", "unfinished", "missing", "damaged"]
    reason: str
    summary: dict[str, Any] | None
    epochs: int
    url: str | None = None
    copies: tuple[str, ...] = ()
    environments: tuple[Environment, ...] = ()

    @property
    def place(self) -> str:
        """The run's folder, its address on W&B, or nothing."""
        return self.url or ("" if self.folder is None else str(self.folder))


def collect(
    sweep_files: Files, runs_dir: str | os.PathLike[str] = "runs", config_file: str | None = None
) -> list[Run]:
    """The runs of every cell of the sweep files, each once, in the order of the files and their cells.

    A random or bayes file has no list of cells: its runs are those that recorded it as their sweep.

    Args:
        sweep_files: in W&B's format.
        runs_dir: the folder of all runs, searched recursively; it need not exist.
        config_file: the configuration that cells start from unless their file's command names one.

    Raises:
        UserError: a sweep file is not valid, or a file or folder cannot be read.
    """
    return match(read_sweeps(sweep_files, config_file), recorded_runs(Path(runs_dir).expanduser()), runs_dir)


def read_sweeps(files: Files, config_file: str | None = None) -> dict[str, Sweep]:
    """The sweeps by the names of their files; `config_file` as of `collect`."""
    return {os.fspath(file): read_sweep(file, config_file) for file in files}


def match(
    sweeps: Mapping[str, Sweep], recorded: Sequence[Recorded], runs_dir: str | os.PathLike[str] = "runs"
) -> list[Run]:
    """The runs of the sweeps among those that were recorded; see `collect`.

    Args:
        sweeps: by their files.
        recorded: from any place; of several records of one run the most complete one counts, then the first.
        runs_dir: the folder that a cell's run is expected in.
    """
    by_cell: defaultdict[str, list[Recorded]] = defaultdict(list)
    for one in recorded:
        if one.identity is not None:
            by_cell[key_of(one.identity, IMAGES)].append(one)
    unreadable = {one.folder: one for one in recorded if one.identity is None and one.folder is not None}
    found: dict[str, Run] = {}
    for called, sweep in sweeps.items():
        try:
            wanted = _grid(sweep) if sweep.method == "grid" else _drawn(sweep, Path(called).stem, by_cell)
        except UserError as error:
            raise UserError(f"file {shown(called)}: {error}") from None
        for named, folder in wanted:
            here = _runs(by_cell.get(key_of(named, IMAGES), []))
            if not here:
                lost = unreadable.get(Path(runs_dir).expanduser() / folder()) if unreadable else None
                here = [_without_record(named, lost)]
            for run in here:
                found.setdefault(run_key(run), run)
    return _with_images(list(found.values()))


Wanted = tuple[Mapping[str, Any], Callable[[], Path]]


def _grid(sweep: Sweep) -> list[Wanted]:
    """The identity of every cell, and its run's folder."""
    return [(plain_identity(cell.config), _folder(cell.config)) for cell in cells(sweep)]


def _folder(config: Config) -> Callable[[], Path]:
    return lambda: Path(run_folder(config))


def _drawn(sweep: Sweep, stem: str, by_cell: Mapping[str, list[Recorded]]) -> list[Wanted]:
    """The identities of the runs that a search drew: those that recorded its name, and W&B's."""
    from neq.sweeps.queue import sweep_name  # imports optuna

    check_search(sweep)
    every = [one for same in by_cell.values() for one in same]
    names = {asked.sweep for one in every if one.url is not None for asked in one.sweeps}
    names.add(sweep_name(sweep, stem, sweep.experiment().settings))
    drawn = [one for one in every if any(asked.sweep in names for asked in one.sweeps)]
    return [(one.identity, Path) for one in drawn if one.identity is not None and _is_valid(one.identity)]


def _is_valid(named: Mapping[str, Any]) -> bool:
    """Whether an identity is that of a configuration; that of a grid's cell always is."""
    # Weights are recorded as a hash of their file, and the images are no setting.
    settings = {name: value for name, value in named.items() if name not in ("weights", IMAGES)}
    try:
        config = config_model().model_validate(nest(settings))
    except (ValidationError, KeyError):
        return False
    return plain_identity(config) == settings


def _runs(recorded: Sequence[Recorded]) -> list[Run]:
    """One run for each set of images: its most complete record."""
    by_images: dict[str, list[Recorded]] = {}
    known = {one.identity[IMAGES] for one in recorded if one.identity is not None and IMAGES in one.identity}
    for one in recorded:
        assert one.identity is not None
        # W&B and config.yaml do not identify the images: assume those of the other records if they agree.
        if len(known) == 1 and (one.url is not None or one.state == "damaged"):
            one = replace(one, identity={**one.identity, IMAGES: next(iter(known))})
        assert one.identity is not None
        by_images.setdefault(key_of(one.identity), []).append(one)
    return [_run(same) for same in by_images.values()]


def _run(same: Sequence[Recorded]) -> Run:
    states = ("done", "unfinished", "damaged")
    best, *others = sorted(same, key=lambda one: states.index(one.state))
    assert best.identity is not None
    return Run(
        folder=best.folder,
        values=_values(best.identity),
        seed=_seed(best.identity),
        config=settings_of(best.identity),
        state=best.state,
        reason=best.reason,
        summary=best.summary,
        epochs=best.epochs,
        url=best.url,
        copies=tuple(one.place for one in others),
        environments=best.environments,
    )


def _without_record(named: Mapping[str, Any], lost: Recorded | None) -> Run:
    """A cell without a run, or whose folder holds nothing readable."""
    return Run(
        folder=None if lost is None else lost.folder,
        values=_values(named),
        seed=_seed(named),
        config=settings_of(named),
        state="missing" if lost is None else "damaged",
        reason=NO_RUN if lost is None else lost.reason,
        summary=None,
        epochs=0 if lost is None else lost.epochs,
    )


def _with_images(runs: list[Run]) -> list[Run]:
    """Missing runs join the seeds that exist: they get the same images if those are known and agree."""
    images: defaultdict[str, set[str]] = defaultdict(set)
    for run in runs:
        if IMAGES in run.values:
            images[key_of(run.values, IMAGES)].add(run.values[IMAGES])
    whole = []
    for run in runs:
        known = images.get(key_of(run.values, IMAGES), set())
        if IMAGES not in run.values and len(known) == 1:
            same = {IMAGES: next(iter(known))}
            run = replace(run, values={**run.values, **same}, config={**run.config, **same})
        whole.append(run)
    return whole


def _values(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name != SEED}


def _seed(named: Mapping[str, Any]) -> int:
    seed = named[SEED]
    assert isinstance(seed, int), "it is that of a cell"
    return seed


def settings_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of an identity, or of one without its seed, defaults filled in: leaf -> JSON value."""
    return {**default_settings(), **named}


def run_key(run: Run) -> str:
    """The text that identifies a run: its settings and its seed as JSON."""
    return key_of({**run.values, SEED: run.seed})


def key_of(named: Mapping[str, Any], without: str | None = None) -> str:
    """Settings as a canonical text, which is equal for equal settings.

    Args:
        named: JSON values by name.
        without: the name of a setting to leave out.
    """
    kept = named if without is None else {name: value for name, value in named.items() if name != without}
    return json.dumps(kept, sort_keys=True)
