"""The recorded results of the transfer benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.transfer_runs import Task
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, shown


class Report:
    """The results so far, in one JSON file.

    Args:
        path: read if it exists; its folder must.

    Raises:
        UserError: a file that holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, Any] = {}
        self.runs: list[dict[str, Any]] = []
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.settings, self.runs = dict(content["settings"]), list(content["runs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"output {shown(str(path))} holds no report of this benchmark") from error

    def settle(self, settings: dict[str, Any]) -> None:
        """Makes sure that the runs to come belong with those that are there.

        Raises:
            UserError: they were made with other settings.
        """
        for key, value in settings.items():
            if self.runs and self.settings.get(key) != value:
                raise UserError(
                    f"output {shown(str(self.path))} holds runs with {key} {shown(self.settings.get(key))}, "
                    f"here it is {shown(value)}; give another --output"
                )
        self.settings = settings

    def add(self, entry: dict[str, Any]) -> None:
        """Keeps the result of a run, on a line of its own."""
        self.runs.append(entry)
        lines = ",\n".join(json.dumps(run, allow_nan=False) for run in self.runs)
        write_text(self.path, f'{{"settings": {json.dumps(self.settings)}, "runs": [\n{lines}\n]}}\n')

    def holds(self, task: Task) -> bool:
        """Whether a run's result is there."""
        return any(
            (run["dataset"], run["cell"], run["base_lr"], run["seed"]) == task.key for run in self.runs
        )


def machines(runs: Iterable[Mapping[str, Any]]) -> str:
    """The processors and torch versions that runs were measured with, each once."""
    known = (run["machine"] for run in runs if run.get("machine"))
    return "; ".join(dict.fromkeys(f"{of['cpu']}, torch {of['torch']}" for of in known))


@contextmanager
def report_to_write(path: Path) -> Iterator[Report]:
    """The report at a path, which no other call writes meanwhile.

    Raises:
        UserError: another call does, or the file holds something else.
    """
    try:
        with FileLock(f"{path}.lock", timeout=0):
            yield Report(path)
    except Timeout:
        raise UserError(f"output {shown(str(path))} is being written by another call") from None
