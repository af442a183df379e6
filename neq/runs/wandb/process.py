"""The process that talks to W&B for one run, so that the run never waits for it.

A script that imports wandb and nothing of neq, whose torch would cost every run seconds and memory. It
follows the run's record, which holds all it needs.

stdin: a line of JSON (see `main`), then the run's exit code on a line when the run is over; end of file
without that line means that the run was killed. stdout: lines for the user. The exit code is 0 when W&B has
everything. The process ends at the latest `seconds` after the run, whatever state the server is in.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

KILLED = 255  # what W&B shows as a killed run


def main() -> int:
    """Sends a record as it grows; returns the exit code.

    The first line of stdin holds: metrics and summary, files of the record; id, project, entity and name of
    the W&B run; config (nested plain values); seconds that this process may outlive the run; follows, whether
    the parent is training, to be stopped when W&B asks for it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends after the run, which may have rows to send
    stdin = open(0, "rb", buffering=0)  # noqa: SIM115  unbuffered: reading a line takes nothing of the next
    asked = json.loads(stdin.readline())
    ending = _Ending(stdin, asked["seconds"])
    if asked["follows"]:
        parent = os.getppid()
        # The client interrupts its process when somebody presses stop on the page of the run.
        signal.signal(signal.SIGINT, lambda *_: _terminate(parent))
    import wandb

    run = _start(wandb, asked, ending)
    if run is None:
        return 1
    _note(f"W&B shows this run at {run.url}" if run.url else f"W&B is offline: {run.dir}")
    run.config.update(asked["config"], allow_val_change=True)
    rows = _Rows(Path(asked["metrics"]), run.step)
    while not ending.over.wait(1):
        rows.send(run)
    rows.send(run)
    summary = Path(asked["summary"])
    if summary.exists():
        run.summary.update(json.loads(summary.read_text(encoding="utf-8")))
    is_online = run.url is not None
    run.finish(exit_code=ending.exit_code)
    return 0 if is_online else 1


class _Ending:
    """Waits for the end of the run, and ends this process some time after it, blocked or not."""

    def __init__(self, stdin: IO[bytes], seconds: float) -> None:
        self.over = threading.Event()
        self.exit_code = KILLED
        self._stdin, self._seconds = stdin, seconds
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        with contextlib.suppress(ValueError):  # end of file: the run was killed
            self.exit_code = int(self._stdin.readline())
        self.over.set()
        time.sleep(self._seconds)
        os._exit(1)


class _Rows:
    """The epochs of metrics.jsonl, each sent once: the step of a row is its epoch, which W&B counts."""

    def __init__(self, path: Path, first: int) -> None:
        self._path, self._next, self._read = path, first, 0

    def send(self, run: Any) -> None:
        """Sends the whole lines that were written since."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().split(b"\n")[:-1]
        for line in lines:
            self._read += len(line) + 1
            row = json.loads(line)
            if row["epochs"] >= self._next:
                run.log(row, step=row["epochs"], commit=True)


def _start(wandb: Any, asked: dict[str, Any], ending: _Ending) -> Any:
    """The W&B run, new or continued; none where W&B refuses it or the run ended before W&B answered."""
    settings = wandb.Settings(
        silent=True, console="off", x_stats_pid=os.getppid(), program="train_classification.py"
    )
    named = {key: asked[key] for key in ("id", "project", "entity", "name")}
    pause = 1.0
    while True:
        try:
            return wandb.init(**named, resume="allow", settings=settings)
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            _note(f"W&B refuses this run: {_line(error)}")
            return None
        except Exception as error:
            if pause == 1:
                _note(f"W&B is unreachable; retrying until the run ends: {_line(error)}")
            wandb.teardown()  # else the client reports that the run is in use
            if ending.over.wait(pause):
                return None
            pause = min(2 * pause, 60)


def _note(line: str) -> None:
    """Prints a line for the user, unless the run has ended meanwhile."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def _terminate(parent: int) -> None:
    """Stops the training, if it still is the parent of this process."""
    if os.getppid() == parent:
        os.kill(parent, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
