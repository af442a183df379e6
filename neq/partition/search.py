"""The search of a branched network: strategies are asked for, sized, trained, recorded, and then told.

Every result is a line of `trials.jsonl`, written before the search is told of it. A search that is started
again reads the lines and is told them in their order, so that it goes on as it would have: with one trial
at a time, or where it stopped between rounds. What is left of a round is asked for anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from neq.partition.costs import macs, parameters
from neq.partition.model_file import mapping_of, write_model
from neq.partition.searches import StrategySearch
from neq.partition.sizing import Sized, Sizing
from neq.partition.strategies import Sync, strategy_name, strategy_of
from neq.partition.trial_runs import Measured
from neq.utils.errors import UserError, shown

TRIALS = "trials.jsonl"
# Name of a round and files of models -> results by file, without those that diverged.
Train = Callable[[str, Sequence[Path]], Mapping[Path, Measured]]


@dataclass(frozen=True)
class Trial:
    """One strategy of a search.

    Args:
        name: of the strategy.
        val_top1, test_top1: in %, means over seeds; none where there are no widths, or a run diverged.
        latency_ms: by the latency model; none without widths.
        parameters, macs: of the network; none without widths.
        runs: folders.
    """

    name: str
    val_top1: float | None = None
    test_top1: float | None = None
    latency_ms: float | None = None
    parameters: int | None = None
    macs: int | None = None
    runs: tuple[str, ...] = field(default=())

    @property
    def sync(self) -> Sync:
        """The strategy."""
        return strategy_of(self.name)


@dataclass(frozen=True)
class PartitionSearch:
    """A search that keeps its record in a folder.

    Args:
        sizing: of the base for the two devices.
        search: what is asked for strategies, fresh.
        train: trains models.
        folder: of the record; models/ in it has the networks.
        count: trials, those of the record too.
        in_flight: trials at a time.
        classes: of the data set.
        note: called with a line for the user.
    """

    sizing: Sizing
    search: StrategySearch
    train: Train
    folder: Path
    count: int
    in_flight: int = 1
    classes: int = 1000
    note: Callable[[str], object] = lambda line: None

    def run(self) -> list[Trial]:
        """All trials, those of the record first.

        Raises:
            UserError: the record is damaged, or a run fails.
        """
        trials = read_trials(self.folder)[: self.count]
        for trial in trials:
            self.search.tell(trial.sync, trial.val_top1)
        while len(trials) < self.count:
            asked = list(self._asked(min(self.in_flight, self.count - len(trials))))
            if not asked:
                self.note("every strategy has been tried")
                break
            for trial in self._tried(asked, len(trials)):
                _record(self.folder, trial)
                trials.append(trial)
                self.search.tell(trial.sync, trial.val_top1)
                self.note(_line(trial, trials, self.count))
        return trials

    def _asked(self, count: int) -> Iterator[Sync]:
        for _ in range(count):
            sync = self.search.ask()
            if sync is None:
                return
            yield sync

    def _tried(self, asked: Sequence[Sync], before: int) -> list[Trial]:
        """The trials of a round, in the order in which they were asked for."""
        sized = {sync: self.sizing.size(sync) for sync in asked}
        files = {sync: self._write(found) for sync, found in sized.items() if found is not None}
        name = f"trials-{before + 1:04d}"
        results = self.train(name, list(files.values())) if files else {}
        return [
            self._trial(sync, sized[sync], results.get(files[sync]) if sync in files else None)
            for sync in asked
        ]

    def _write(self, sized: Sized) -> Path:
        """Writes a network to a file named by its content: sweeps know a cell by the path of its network."""
        content = json.dumps(mapping_of(sized.model), sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        path = self.folder / "models" / f"{sized.model.name}-{digest}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_model(path, sized.model)
        return path

    def _trial(self, sync: Sync, sized: Sized | None, measured: Measured | None) -> Trial:
        if sized is None:
            return Trial(strategy_name(sync))
        sizes = parameters(sized.model, self.classes), macs(sized.model, self.classes)
        if measured is None:
            return Trial(strategy_name(sync), None, None, sized.latency.total, *sizes)
        top1 = measured.val_top1, measured.test_top1
        return Trial(strategy_name(sync), *top1, sized.latency.total, *sizes, measured.runs)


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the best validation, of equal ones the first; None where all failed."""
    scored = [trial for trial in trials if trial.val_top1 is not None]
    return max(scored, key=lambda trial: trial.val_top1 or 0.0, default=None)


def read_trials(folder: Path) -> list[Trial]:
    """The trials of a search's record, none where there is none; a last line without an end is left out.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / TRIALS
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [_read(path, number, line) for number, line in enumerate(whole, 1)]


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The rank correlation; none of fewer than three pairs, or of equal values."""
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(pairs).statistic)


def _read(path: Path, number: int, line: str) -> Trial:
    try:
        values: dict[str, Any] = json.loads(line)
        trial = Trial(**{**values, "runs": tuple(values["runs"])})
        strategy_of(trial.name)
        if trial.val_top1 is not None and not 0 <= trial.val_top1 <= 100:
            raise ValueError(f"val_top1 {shown(trial.val_top1)}")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}, line {number} is damaged ({error}); remove it, its runs are kept") from None
    return trial


def _record(folder: Path, trial: Trial) -> None:
    """Appends a trial to the record, on disk when this returns; what a crash left of a line is cut off."""
    path = folder / TRIALS
    line = json.dumps(asdict(trial), allow_nan=False) + "\n"
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _line(trial: Trial, trials: Sequence[Trial], count: int) -> str:
    place = f"trial {len(trials)} of {count}: {trial.name}"
    if trial.latency_ms is None:
        return f"{place} leaves no time for blocks"
    if trial.val_top1 is None:
        return f"{place} diverged"
    best = best_trial(trials)
    assert best is not None
    return f"{place} {trial.val_top1:.2f} % (best {best.val_top1:.2f} %, {best.name})"
