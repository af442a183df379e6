"""What the tests of `neq sweep` share: sweep files with cells of a second, the command, a database server."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from neq.cli import main
from neq.sweeps import read_sweep
from neq.sweeps.history import CellState
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.storage import open_storage
from tests.forked import NEQ, Forked, ensure_server

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
TIMEOUT = 600
FAST = (
    "dataset: {value: 'npz:tiny.npz'}, image_size: {value: 16}, base_batch_size: {value: 16}, "
    "n_epochs: {value: 2}, warmup_epochs: {value: 0}, "
)


def write_sweep(folder: Path, parameters: str, more: str = "method: grid", name: str = "sweep.yaml") -> Path:
    """A sweep over a data set of 96 tiny images, whose cells take about a second."""
    if not (folder / "tiny.npz").exists():
        rng = np.random.default_rng(0)
        images = rng.integers(0, 255, (96, 16, 16, 3), dtype=np.uint8)
        np.savez(folder / "tiny.npz", x=images, y=np.arange(96) % 4)
    file = folder / name
    metric = "metric: {name: valid.val/best, goal: maximize}"
    file.write_text(
        f"program: train_classification.py\n{more}\n{metric}\nparameters: {{{FAST}{parameters}}}\n"
    )
    return file


def start_sweep(folder: Path, *arguments: str) -> Forked:
    """`neq sweep` in a folder, in a session of its own, its output in one stream."""
    return Forked(NEQ, "sweep", *arguments, cwd=folder, one_stream=True)


def start_cold_sweep(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The same as the command itself starts it, and its server of workers."""
    return subprocess.Popen(
        [sys.executable, "-m", "neq", "sweep", *arguments],
        cwd=folder, env=ENV, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run_sweep(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `neq sweep` in a folder: in this process, whose server forks the workers."""
    ensure_server()
    output = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main(["sweep", *arguments])
    return code, output.getvalue()


def states(folder: Path, storage: str | None = None) -> list[CellState]:
    """How far the cells of the sweep are, as its storage says."""
    with closing(open_queue(folder, storage)) as queue:
        return queue.states()


def open_queue(folder: Path, storage: str | None = None) -> CellQueue:
    """The queue of the folder's latest sweep of the file `sweep.yaml`."""
    sweep = read_sweep(folder / "sweep.yaml")
    name = sweep_name(sweep, "sweep", sweep.experiment().settings)
    return CellQueue(open_storage(storage, folder / "runs"), name, sweep)


def wait_for(condition, what: str, seconds: float = 120) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@contextmanager
def postgresql() -> Iterator[str]:
    """A server of its own, and the address of its database; skips where PostgreSQL is not installed."""
    # Not below pytest's folder, which every session closes to other users, and the server is one.
    with tempfile.TemporaryDirectory(prefix="neq-postgresql-") as folder:
        yield from _serve(Path(folder))


def _serve(folder: Path) -> Iterator[str]:
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (initdb is not found)")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    binaries = Path(found).resolve().parent
    # The server refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    port = _free_port()

    def run(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    run(str(binaries / "initdb"), "-D", str(data), "-U", "neq", "-A", "trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = (str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "server.log"))
    run(*control, "-o", options, "start")
    try:
        yield f"postgresql://neq@127.0.0.1:{port}/postgres"
    finally:
        run(*control, "-m", "immediate", "stop")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
