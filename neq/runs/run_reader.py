"""All runs below a folder, each as far as its record can be read, without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from neq.config import Config, read_yaml, stored_config
from neq.runs.environment import Environment
from neq.runs.identity import default_settings, plain_identity
from neq.runs.layout import CHECKPOINTS, CONFIG, IDENTITY, METRICS, SUMMARY
from neq.runs.metrics import summary_metrics
from neq.runs.record_header import UNKNOWN, RecordHeader, SweepCell, read_header
from neq.runs.stored_run import read_object
from neq.utils.errors import UserError, shown

# What only a run leaves behind, beside its identity.
TRACES = frozenset({SUMMARY, METRICS, CHECKPOINTS})
# What is computed with, and must be a number (or null, where it may be unknown) in a summary.
NEEDED = ("epochs", "best_epoch", "test_top1")
# No figure of a run comes near it; JSON has numbers that no float can hold.
LARGEST = 1e300


@dataclass(frozen=True)
class Run:
    """A run as far as its record can be read, in a folder or on W&B, or a cell of a sweep without one.

    Args:
        identity: the settings that can change its result, as in identity.json; empty: they cannot be read.
        state: "unfinished": it has no summary; "missing": it was not started; "damaged": its record cannot be
            used.
        reason: why it is not done, in one line.
        summary: as in summary.json, of a run that is done.
        epochs: recorded so far.
        folder: of the run; none: there is no run, or it is on W&B.
        url: of the run on W&B, if it was read from there.
        header: environments and sweeps; of format 1 they are not known.
        copies: further places that hold the same run.
    """

    identity: Mapping[str, Any]
    state: Literal["done", "unfinished", "missing", "damaged"]
    reason: str = ""
    summary: dict[str, Any] | None = None
    epochs: int = 0
    folder: Path | None = None
    url: str | None = None
    header: RecordHeader = UNKNOWN
    copies: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        """The run's seed."""
        seed: int = self.identity["manual_seed"]
        return seed

    @property
    def config(self) -> dict[str, Any]:
        """Every setting that can change its result, defaults included: leaf -> JSON value."""
        return {**default_settings(), **self.identity}

    @property
    def place(self) -> str:
        """The run's folder, its address on W&B, or nothing."""
        return self.url or ("" if self.folder is None else str(self.folder))

    @property
    def environments(self) -> tuple[Environment, ...]:
        """The environments that computed it, in their order; a resumed run may have several."""
        return self.header.environments

    @property
    def sweeps(self) -> tuple[SweepCell, ...]:
        """The cells of sweeps that asked for it."""
        return self.header.sweeps


def recorded_runs(runs: Path) -> list[Run]:
    """Every run below a folder, in the order of their paths; none where there is no such folder.

    Raises:
        UserError: it is not a folder, or cannot be read.
    """
    if not runs.exists():
        return []
    if not runs.is_dir():
        raise UserError(f"runs_dir {shown(str(runs))} is a file; give the folder of the runs")
    try:
        os.listdir(runs)
    except OSError as error:
        raise UserError(f"runs_dir {shown(str(runs))} cannot be read ({error.strerror})") from error
    return [_read(folder, names) for folder, names in _run_folders(runs)]


def _run_folders(runs: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """The folders of runs with the names in them; the folders inside a run are not searched."""
    # Real paths, so that a link back up ends nowhere.
    seen: set[str] = set()
    unreadable: list[OSError] = []
    for path, folders, files in os.walk(runs, onerror=unreadable.append, followlinks=True):
        names = frozenset((*folders, *files))
        if IDENTITY in names or len(TRACES & names) > 1:
            folders.clear()
            yield Path(path), names
            continue
        folders.sort()
        for name in [name for name in folders if os.path.islink(os.path.join(path, name))]:
            real = os.path.realpath(os.path.join(path, name))
            if real in seen or Path(path).resolve().is_relative_to(real):
                folders.remove(name)
            seen.add(real)
    yield from ((Path(error.filename), frozenset()) for error in unreadable)


def _read(folder: Path, names: frozenset[str]) -> Run:
    found = Run({}, "damaged", folder=folder)
    try:
        named = read_object(folder / IDENTITY, IDENTITY)
    except UserError as error:
        return replace(found, identity=_from_config(folder), reason=str(error), epochs=_epochs(folder))
    found = replace(found, identity=named)
    try:
        found = replace(found, header=read_header(folder))
        if SUMMARY in names:
            summary = read_object(folder / SUMMARY, SUMMARY)
            check_summary(summary, SUMMARY)
            return replace(found, state="done", summary=summary, epochs=summary["epochs"])
    except UserError as error:
        return replace(found, reason=str(error), epochs=_epochs(folder))
    epochs = _epochs(folder)
    return replace(found, state="unfinished", reason=how_far(named, epochs), epochs=epochs)


def check_summary(summary: Mapping[str, Any], called: str) -> None:
    """Checks that a summary can be computed with.

    Raises:
        UserError: names the first value that is missing or not a number.
    """
    for name in NEEDED:
        if name not in summary:
            raise UserError(f"{called} is damaged ({name} is missing)")
    for name in dict.fromkeys((*NEEDED, "budget", *summary_metrics())):
        value = summary.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and (not is_number or LARGEST <= abs(value) < math.inf):
            raise UserError(f"{called} is damaged ({name} is {shown(value)})")
    for name in ("epochs", "best_epoch"):
        if not isinstance(summary[name], int):
            raise UserError(f"{called} is damaged ({name} is {shown(summary[name])})")


def number(value: object) -> float | None:
    """The value where it is a finite number of usual size, else none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < LARGEST else None


def how_far(named: Mapping[str, Any], epochs: int) -> str:
    """How far an unfinished run is, in one line."""
    settings = Config().run_config
    wanted = [named.get(name, getattr(settings, name)) for name in ("n_epochs", "warmup_epochs")]
    whole = sum(wanted) if all(isinstance(value, int) for value in wanted) else "?"
    return f"unfinished, {epochs} of {whole} epochs"


def _epochs(folder: Path) -> int:
    """The whole lines of metrics.jsonl."""
    try:
        with (folder / METRICS).open("rb") as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0


def _from_config(folder: Path) -> dict[str, Any]:
    """The identity by the run's config.yaml, where identity.json cannot be read."""
    try:
        return identity_of(read_yaml(folder / CONFIG))
    except UserError:
        return {}


def identity_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a resolved configuration that was recorded, as JSON gives it back.

    Args:
        values: nested, complete.

    Raises:
        UserError: it is not a configuration, or starts from a file of weights that cannot be read.
    """
    try:
        config = stored_config(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"its configuration cannot be read ({where}: {first['msg']})") from None
    return plain_identity(config)
