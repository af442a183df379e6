"""Every run that belongs to sweep files, found by what it recorded itself, and grouped over seeds."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from neq.config import Config, config_model
from neq.config.keys import KEYS, flatten_file
from neq.config.writing import to_mapping
from neq.results.search_space import SearchSpace
from neq.runs import run_folder
from neq.runs.identity import NOT_IDENTITY, plain_identity
from neq.runs.run_reader import Recorded, recorded_runs
from neq.sweeps import Sweep, cells, read_sweep
from neq.utils.errors import UserError, shown

SEED, IMAGES = "manual_seed", "data_fingerprint"
NO_RUN = "no run"
Files = Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Run:
    """A run of a sweep, or a cell of it that has none.

    Args:
        folder: of the run; none: there is no run, or W&B has it.
        values: the settings that identify it without its seed, leaf -> JSON value; defaults are left out.
        seed: of the run.
        config: every setting that can change its result, leaf -> JSON value, defaults filled in (manual_seed
            and, where images lie in files, their data_fingerprint among them; not device, root, ...).
        state: "unfinished": begun, without a summary; "missing": not begun; "damaged": unreadable.
        reason: why it is not done, in one line; empty when it is.
        summary: as in summary.json, when it is done.
        epochs: how many it recorded.
        url: of the run on W&B, where it comes from there.
        copies: where the same run lies too.
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

    @property
    def place(self) -> str:
        """Where the run is to be found: its folder, its address on W&B, or nowhere."""
        return self.url or ("" if self.folder is None else str(self.folder))


@dataclass(frozen=True)
class Group:
    """The runs that differ in nothing but their seed.

    Args:
        values: what they share, as in `Run.values`.
        config: what they share, as in `Run.config`, without the seed.
        runs: in the order of their seeds, each seed once, missing ones too.
    """

    values: Mapping[str, Any]
    config: Mapping[str, Any]
    runs: tuple[Run, ...]

    @property
    def done(self) -> tuple[Run, ...]:
        """Those of the runs that are done."""
        return tuple(run for run in self.runs if run.state == "done")

    @property
    def seeds_done(self) -> int:
        """How many seeds are done."""
        return len(self.done)

    @property
    def seeds_expected(self) -> int:
        """How many seeds the sweeps ask for (of a search: how many it has drawn)."""
        return len(self.runs)


def collect(
    sweep_files: Files, runs_dir: str | os.PathLike[str] = "runs", config_file: str | None = None
) -> list[Run]:
    """The runs of every cell of the sweep files, each once, in the order of the files and their cells.

    Of a random or bayes file, which has no list of cells: the runs below `runs_dir` that it may have drawn.

    Args:
        sweep_files: in W&B's format.
        runs_dir: the folder of all runs, searched whole; it need not exist.
        config_file: what cells start from where their file's command does not name it.

    Raises:
        UserError: a sweep file that cannot be read or is not valid, or a folder that cannot be.
    """
    return match(read_sweeps(sweep_files, config_file), recorded_runs(Path(runs_dir).expanduser()), runs_dir)


def read_sweeps(files: Files, config_file: str | None = None) -> dict[str, Sweep]:
    """The sweeps by the names of their files."""
    found = {}
    for file in files:
        sweep = read_sweep(file)
        if config_file is not None and not any(
            flag.startswith(("--config-file", "--config_file")) for flag in sweep.flags
        ):
            sweep = sweep.model_copy(update={"flags": (*sweep.flags, "--config-file", config_file)})
        found[os.fspath(file)] = sweep
    return found


def match(
    sweeps: Mapping[str, Sweep], recorded: Sequence[Recorded], runs_dir: str | os.PathLike[str] = "runs"
) -> list[Run]:
    """The runs of the sweeps among those that were recorded; see `collect`.

    Args:
        sweeps: by the name that an error calls them by.
        recorded: from any place; of several records of one run the most complete one counts, then the first.
        runs_dir: where a cell's own run would lie.
    """
    by_cell: defaultdict[str, list[Recorded]] = defaultdict(list)
    for one in recorded:
        if one.identity is not None:
            by_cell[key_of(one.identity, IMAGES)].append(one)
    unreadable = {one.folder: one for one in recorded if one.identity is None and one.folder is not None}
    found: dict[str, Run] = {}
    for called, sweep in sweeps.items():
        try:
            wanted = _grid(sweep) if sweep.method == "grid" else _drawn(SearchSpace(sweep), by_cell)
        except UserError as error:
            raise UserError(f"file {shown(called)}: {error}") from None
        for named, folder in wanted:
            here = _runs(by_cell.get(key_of(named, IMAGES), []))
            if not here:
                lost = unreadable.get(Path(runs_dir).expanduser() / folder()) if unreadable else None
                here = [_without_record(named, lost)]
            for run in here:
                found.setdefault(key_of({**run.values, SEED: run.seed}), run)
    return _with_images(list(found.values()))


def group(runs: Iterable[Run]) -> list[Group]:
    """The runs by their identity without the seed, in the order in which they come."""
    by_values: dict[str, list[Run]] = {}
    for run in runs:
        by_values.setdefault(key_of(run.values), []).append(run)
    return [
        Group(
            members[0].values,
            {name: value for name, value in members[0].config.items() if name != SEED},
            tuple(sorted(members, key=lambda run: run.seed)),
        )
        for members in by_values.values()
    ]


Wanted = tuple[Mapping[str, Any], Callable[[], Path]]


def _grid(sweep: Sweep) -> list[Wanted]:
    """The identity of every cell, and the folder that its run would get."""
    return [(plain_identity(cell.config), _folder(cell.config)) for cell in cells(sweep)]


def _folder(config: Config) -> Callable[[], Path]:
    return lambda: Path(run_folder(config))


def _drawn(space: SearchSpace, by_cell: Mapping[str, list[Recorded]]) -> list[Wanted]:
    """The identities that a search may have drawn, among those there are."""
    wanted: list[Wanted] = []
    for same in by_cell.values():
        assert same[0].identity is not None
        named = {name: value for name, value in same[0].identity.items() if name != IMAGES}
        config = space.config(settings_of(named), named)
        if config is not None:
            wanted.append((named, _folder(config)))
    return wanted


def _runs(recorded: Sequence[Recorded]) -> list[Run]:
    """One run for every copy of the images: the most complete record of it."""
    by_images: dict[str, list[Recorded]] = {}
    known = {one.identity[IMAGES] for one in recorded if one.identity is not None and IMAGES in one.identity}
    for one in recorded:
        assert one.identity is not None
        # W&B and config.yaml do not tell which images: those of the other records, where they are one copy.
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
    )


def _without_record(named: Mapping[str, Any], lost: Recorded | None) -> Run:
    """A cell without a run, or whose own folder holds nothing that can be read."""
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
    """A missing seed counts to the seeds that there are, whose images are known, where those are one copy."""
    images: defaultdict[str, set[str]] = defaultdict(set)
    for run in runs:
        if IMAGES in run.values:
            images[key_of(run.values, IMAGES)].add(run.values[IMAGES])
    whole = []
    for run in runs:
        known = images.get(key_of(run.values, IMAGES), set())
        if IMAGES not in run.values and len(known) == 1:
            said = {IMAGES: next(iter(known))}
            run = replace(run, values={**run.values, **said}, config={**run.config, **said})
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
    return {**_defaults(), **named}


@cache
def _defaults() -> dict[str, Any]:
    """Leaf -> default of every setting that can change a result."""
    flat = flatten_file(to_mapping(config_model()()))
    return {name: flat[name] for name in KEYS if name not in NOT_IDENTITY}


def key_of(named: Mapping[str, Any], without: str | None = None) -> str:
    """Settings as a text that is the same for the same settings.

    Args:
        named: JSON values by name.
        without: the name of one that does not count.
    """
    kept = named if without is None else {name: value for name, value in named.items() if name != without}
    return json.dumps(kept, sort_keys=True)


def differing(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of what some of several settings differ in, in the order in which they come.

    Args:
        settings: JSON values by name; a name that is not in one stands for None there.
    """
    several = list(settings)
    names = dict.fromkeys(name for one in several for name in one)
    return [name for name in names if len({key_of({"": one.get(name)}) for one in several}) > 1]
