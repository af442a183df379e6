"""Python processes for tests, forked from a server that has torch and neq imported: seconds less for each.

For tests of what a process does, not of how one starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import forkserver, util
from pathlib import Path
from unittest.mock import patch

from benchmarks.forked_runs import CONTEXT

ROOT = Path(__file__).resolve().parents[1]
# That of no test; torch reads the level when it is imported, and neq sets it where it runs in processes.
ENV = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR"}
# `neq`, whose runs draw no pictures.
NEQ = """
import sys
from neq.cli import main
from tests.toys import draw_nothing, drawing
with drawing(draw_nothing):
    sys.exit(main(sys.argv[1:]))
"""


class Forked:
    """A process that runs a script, with the face of subprocess.Popen.

    Args:
        script: Python code.
        arguments: of the script.
        cwd: folder that it runs in; none: this process's.
        env: variables beside those of this process, or instead of them.
        one_stream: whether standard error goes to standard output.
    """

    def __init__(
        self,
        script: str,
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        one_stream: bool = False,
    ) -> None:
        self._files = [tempfile.NamedTemporaryFile("r", errors="replace") for _ in range(2)]  # noqa: SIM115
        names = [self._files[0].name, self._files[0 if one_stream else 1].name]
        variables = {**os.environ, **(env or {})}
        ensure_server()
        self._process = CONTEXT.Process(
            target=_run, args=(script, arguments, cwd or Path.cwd(), variables, names)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, -N after signal N; none while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def output(self) -> str:
        """What the process has written to standard output so far."""
        return Path(self._files[0].name).read_text(errors="replace")

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the process to end; returns its standard output and standard error."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("forked", timeout or 0, self.output())
        output, error = (Path(file.name).read_text(errors="replace") for file in self._files)
        return output, error

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_forked(
    script: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What subprocess.run returns, of a script in such a process."""
    process = Forked(script, *arguments, cwd=cwd, env=env)
    output, error = process.communicate(timeout=600)
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, output, error)


def ensure_server() -> None:
    """Starts this process's server of forks where it does not run, as if no test ran."""
    CONTEXT.set_forkserver_preload(["benchmarks.forked_runs"])
    with contextlib.chdir(ROOT), patch.dict(os.environ, ENV, clear=True):
        forkserver.ensure_running()


def _run(
    script: str, arguments: tuple[str, ...], cwd: Path, variables: dict[str, str], outputs: list[str]
) -> None:
    """The main function of the process."""
    os.setsid()
    for number, name in enumerate(outputs, 1):
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["script", *arguments]
    util.spawnv_passfds = partial(_forked_server, util.spawnv_passfds)
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})


def _forked_server(
    spawn: Callable[..., int], path: bytes, arguments: Sequence[str], passed: Sequence[int]
) -> int:
    """Starts a server of forks that the process asks for: a fork too, which has imported all of it."""
    if "forkserver" not in arguments[-1]:
        return spawn(path, arguments, passed)
    if pid := os.fork():
        return pid
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in map(int, os.listdir("/proc/self/fd")):
            if number > 2 and number not in passed:
                with contextlib.suppress(OSError):  # that of the folder itself
                    os.close(number)
        exec(arguments[-1], {})
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
