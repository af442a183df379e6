"""A mirror of a run on W&B, which a run never waits for but a bounded time at its end.

The client blocks where the server does not answer: wandb.init for 102 s, finish() for good, in threads and a
child process that outlive a deadline kept beside them. So the client lives in a process of its own
(process.py) that follows the run's record, and what is left of it at the deadline is killed.
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

from neq.utils.atomic_files import write_text

if TYPE_CHECKING:
    from neq.training import EpochReport

PATIENCE = 25.0  # seconds that a run waits at its end, the only place where it waits
KILLED = 255  # the exit code that W&B shows as a killed run
_SCRIPT = Path(__file__).with_name("process.py")


class WandbMirror:
    """Mirrors the record in a folder to W&B, from `with` to the end of its block.

    wandb.json in the folder keeps which W&B run it is, so that a resumed run and a later sync go on with it.

    Args:
        folder: of the run; locked by this process.
        config: nested plain values, shown as the run's configuration.
        project: where WANDB_PROJECT does not say it.
        tell: called with every line for the user.
        patience: seconds to wait at the end.
        exit_code: shown as the run's when the block ends well.
        follows: whether a training goes on in the block, to be stopped when W&B says so.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, object],
        project: str,
        tell: Callable[[str], None],
        patience: float = PATIENCE,
        exit_code: int = 0,
        follows: bool = True,
    ) -> None:
        self._folder, self._config, self._tell = folder, config, tell
        self._patience, self._exit_code, self._follows = patience, exit_code, follows
        self._run = _which_run(folder, project)
        self.complete = False

    def __enter__(self) -> Self:
        self._keep()
        first = {
            **self._run,
            "folder": str(self._folder),
            "name": run_name(self._config) if "WANDB_SWEEP_ID" not in os.environ else None,
            "config": self._config,
            "seconds": self._patience + 10,  # should this process be killed before it can kill that one
            "follows": self._follows,
        }
        # What an agent's own client runs in, and the values of its sweep, which could no longer be resolved.
        hidden = ("WANDB_SERVICE", "WANDB_SWEEP_PARAM_PATH")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in hidden},
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is for the run, which then ends this
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._write(json.dumps(first))
        return self

    def step(self, epoch: int, step: int, steps: int) -> None:
        """W&B is told of epochs."""

    def epoch(self, report: EpochReport) -> None:
        """Passes on what the process has said; the epoch's row it reads from the record."""
        self._relay()

    def finish(self, summary: dict[str, Any]) -> None:
        """The summary it reads from the record."""

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
        self._keep()
        if not self.complete:
            self._tell(f"W&B does not have all of this run; send it later with neq sync {self._folder}")

    def _keep(self) -> None:
        text = json.dumps({**self._run, "complete": self.complete}, indent=2)
        write_text(self._folder / "wandb.json", text + "\n")

    def _write(self, line: str) -> None:
        """A line to the process, far below what a pipe holds: nothing waits here."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode() + b"\n")

    def _relay(self) -> None:
        assert self._process.stdout is not None
        text = self._process.stdout.read() or b""
        for line in text.decode(errors="replace").splitlines():
            self._tell(line)


def _which_run(folder: Path, project: str) -> dict[str, str | None]:
    """Project, entity and id of the W&B run: as the environment, the folder, or nobody says."""
    kept: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        kept = json.loads((folder / "wandb.json").read_text(encoding="utf-8"))
    kept = kept if isinstance(kept, dict) else {}
    named = {
        "project": os.environ.get("WANDB_PROJECT") or kept.get("project") or project,
        "entity": os.environ.get("WANDB_ENTITY") or kept.get("entity"),
    }
    moved = any(kept.get(name) not in (None, value) for name, value in named.items())
    new = secrets.token_hex(8)
    known = None if moved else kept.get("id")
    return {**named, "id": os.environ.get("WANDB_RUN_ID") or known or new}


def run_name(config: Mapping[str, Any]) -> str:
    """What the page of the run is called."""
    data, net, neq = (config[section] for section in ("data_provider", "net_config", "NEq_config"))
    return "/".join(
        [data["dataset"], net["net_name"], neq["neuron_selection"], f"seed {config['manual_seed']}"]
    )
