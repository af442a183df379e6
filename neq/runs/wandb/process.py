"""The process that talks to W&B for one run, so that the run never waits for it.

A script beside the package rather than a part of it: it imports wandb and nothing of neq, whose torch would
cost every run seconds and memory. It follows the run's own record, which is all it needs to know.

stdin: a line of JSON (see `main`), then the run's exit code on a line when the run is over. A stdin that ends
without one is the end of a run that was killed. stdout: lines for the user. It ends with 0 when W&B has
everything, and at the latest `seconds` after the run, whatever state the server is in.
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
    """Sends a record as it grows; gives the exit code.

    The first line of stdin holds: folder; id, project, entity and name of the W&B run; config (nested, plain
    values); seconds (that it may go on after the end of the run); follows (whether a training is at the other
    end, to be stopped when W&B says so).
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when the run has, which may have rows to send
    stdin = open(0, "rb", buffering=0)  # noqa: SIM115  unbuffered: a line read takes nothing of the next one
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
    _say(f"W&B shows this run at {run.url}" if run.url else f"W&B is offline: {run.dir}")
    run.config.update(asked["config"], allow_val_change=True)
    rows = _Rows(Path(asked["folder"]) / "metrics.jsonl", run.step)
    while not ending.over.wait(1):
        rows.send(run)
    rows.send(run)
    summary = Path(asked["folder"]) / "summary.json"
    if summary.exists():
        run.summary.update(json.loads(summary.read_text(encoding="utf-8")))
    online = run.url is not None
    run.finish(exit_code=ending.exit_code)
    return 0 if online else 1


class _Ending:
    """Waits for the end of the run, and ends this process some time after it, blocked or not."""

    def __init__(self, stdin: IO[bytes], seconds: float) -> None:
        self.over = threading.Event()
        self.exit_code = KILLED
        self._stdin, self._seconds = stdin, seconds
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        with contextlib.suppress(ValueError):  # no code: the run was killed
            self.exit_code = int(self._stdin.readline())
        self.over.set()
        time.sleep(self._seconds)
        os._exit(1)


class _Rows:
    """The epochs of metrics.jsonl, each sent once: a row's step is its epoch, so W&B knows which it has."""

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
    """The W&B run, begun or gone on with; none where W&B refuses it or the run ended before W&B answered."""
    settings = wandb.Settings(
        silent=True, console="off", x_stats_pid=os.getppid(), program="train_classification.py"
    )
    pause = 1.0
    while True:
        try:
            return wandb.init(
                id=asked["id"],
                project=asked["project"],
                entity=asked["entity"],
                name=asked["name"],
                resume="allow",
                settings=settings,
            )
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            _say(f"W&B refuses this run: {_line(error)}")
            return None
        except Exception as error:
            if pause == 1:
                _say(f"W&B does not take this run yet, tried again: {_line(error)}")
            wandb.teardown()  # the client would say that the run is in use
            if ending.over.wait(pause):
                return None
            pause = min(2 * pause, 60)


def _say(line: str) -> None:
    """A line for the user; the run may have gone meanwhile."""
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
