"""A mirror of a run on W&B, which a run waits for only at its end, and for a bounded time.

Without a server W&B's client blocks: wandb.init for 102 s, finish() for good, in threads and a child process
that survive a deadline in this process. So the client runs in a process of its own (process.py) that follows
the run's record, and that process is killed at the deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from neq.runs.layout import METRICS, SUMMARY, WANDB
from neq.runs.record_header import SweepCell
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

if TYPE_CHECKING:
    from neq.training import EpochReport

PATIENCE = 25.0  # seconds that a run waits at its end, the only place where it waits
KILLED = 255  # the exit code that W&B shows as a killed run
_SCRIPT = Path(__file__).with_name("process.py")
# Of an agent's own client: its service, and the values of its sweep, which its folder no longer resolves.
_HIDDEN = ("WANDB_SERVICE", "WANDB_SWEEP_PARAM_PATH")


class WandbMirror:
    """Mirrors the record in a folder to W&B, from `with` to the end of its block.

    wandb.json in the folder keeps the id of the W&B run, so that a resumed run and a later sync continue it.

    Args:
        folder: of the run; locked by this process.
        config: nested plain values, shown as the run's configuration.
        project: used unless WANDB_PROJECT names one.
        notes: called with each line for the user.
        patience: seconds to wait at the end.
        exit_code: shown as the run's when the block ends without an exception.
        follows: whether a training runs in the block, to be stopped when W&B asks for it.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, object],
        project: str,
        notes: Callable[[str], None],
        patience: float = PATIENCE,
        exit_code: int = 0,
        follows: bool = True,
    ) -> None:
        self._folder, self._config, self._notes = folder, config, notes
        self._patience, self._exit_code, self._follows = patience, exit_code, follows
        self._run = _wandb_run(folder, project)
        self.complete = False

    def __enter__(self) -> Self:
        self._save()
        request = {
            **self._run,
            "metrics": str(self._folder / METRICS),
            "summary": str(self._folder / SUMMARY),
            "name": run_name(self._config) if wandb_cell() is None else None,
            "config": self._config,
            "seconds": self._patience + 10,  # in case this process is killed before it can kill that one
            "follows": self._follows,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in _HIDDEN},
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is for the run, which then ends this process
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._write(json.dumps(request))
        return self

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Steps are not sent."""

    def epoch(self, report: EpochReport) -> None:
        """Passes the process's lines on to the user; the process reads the epoch from the record."""
        self._relay()

    def finish(self, summary: dict[str, Any]) -> None:
        """The process reads the summary from the record."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        code = self._exit_code if kind is None else 1 if issubclass(kind, Exception) else KILLED
        try:
            self._write(str(code))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._patience)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._relay()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self.complete = self._process.returncode == 0
        self._save()
        if not self.complete:
            self._notes(f"W&B does not have all of this run; send it later with neq sync {self._folder}")

    def _save(self) -> None:
        text = json.dumps({**self._run, "complete": self.complete}, indent=2)
        write_text(self._folder / WANDB, text + "\n")

    def _write(self, line: str) -> None:
        """Sends a line to the process; it is far shorter than a pipe's buffer, so this does not wait."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode() + b"\n")

    def _relay(self) -> None:
        assert self._process.stdout is not None
        text = self._process.stdout.read() or b""
        for line in text.decode(errors="replace").splitlines():
            self._notes(line)


def _wandb_run(folder: Path, project: str) -> dict[str, str | None]:
    """Project, entity and id of the W&B run: from the environment, else from the folder, else new."""
    kept: dict[str, Any] = {}
    with contextlib.suppress(UserError):
        kept = read_object(folder / WANDB)
    named = {
        "project": os.environ.get("WANDB_PROJECT") or kept.get("project") or project,
        "entity": os.environ.get("WANDB_ENTITY") or kept.get("entity"),
    }
    moved = any(kept.get(name) not in (None, value) for name, value in named.items())
    known = None if moved else kept.get("id")
    return {**named, "id": os.environ.get("WANDB_RUN_ID") or known or secrets.token_hex(8)}


def wandb_cell(environment: Mapping[str, str] = os.environ) -> SweepCell | None:
    """The cell of a W&B sweep that `wandb agent` started this process as; none elsewhere."""
    sweep = environment.get("WANDB_SWEEP_ID")
    if not sweep:
        return None
    path = (environment.get("WANDB_ENTITY"), environment.get("WANDB_PROJECT"), sweep)
    return SweepCell("/".join(filter(None, path)), environment.get("WANDB_RUN_ID", ""))


def run_name(config: Mapping[str, Any]) -> str:
    """The title of the run's page."""
    data, net, neq = (config[section] for section in ("data_provider", "net_config", "NEq_config"))
    return "/".join(
        [data["dataset"], net["net_name"], neq["neuron_selection"], f"seed {config['manual_seed']}"]
    )
