"""Running a command: its exit code, and the one line that an error, a fault or a signal ends it with."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from neq.utils.errors import UserError, first_line, printable, shown

# Errors of a path that the user gave, by errno.
_PATH_ERRORS = {
    errno.ENAMETOOLONG: "is too long for the name of a file",
    errno.EACCES: "may not be read or written (permission denied); make it so, or give another",
    errno.ENOTDIR: "lies below a file, where no folder is; give another",
}


class Terminated(BaseException):
    """SIGTERM arrived."""


class Ended(Exception):
    """Ends a process of a distributed run, whose error is reported once for all processes.

    Args:
        code: to exit with.
        line: the report; None where another process reports it.
    """

    def __init__(self, code: int, line: str | None = None) -> None:
        super().__init__(line)
        self.code, self.line = code, line


RUN_STOPPED = "stopped at once; run the same command again with --resume to continue from the last checkpoint"


def run_command(
    command: Callable[[list[str]], int], argv: list[str], stopped: str | None = RUN_STOPPED
) -> int:
    """Runs a command, and turns whatever ends it into one line and an exit code.

    Args:
        command: takes the arguments, returns the exit code.
        argv: the arguments; with --debug among them tracebacks are shown.
        stopped: the line after SIGINT or SIGTERM; None where another process reports it.

    Returns:
        The command's own code; 2 for a user's mistake, 1 for a fault, 130 after SIGINT, 143 after SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            return command(argv)
        except BaseException:
            for number in former:
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C has no effect any more
            raise
    except UserError as error:
        return _end(error, exit_code(error), str(error), argv)
    except (KeyboardInterrupt, Terminated) as error:
        return _end(error, exit_code(error), str(error) or stopped, argv)
    except Ended as error:
        return _end(error, error.code, error.line, argv)
    except BrokenPipeError:
        # Otherwise Python reports the error again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None and error.errno in _PATH_ERRORS:
            return _end(error, 2, f"{shown(error.filename)} {_PATH_ERRORS[error.errno]}", argv)
        return _end(error, 1, f"{first_line(error)} ({type(error).__name__}; --debug shows where)", argv)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """Ends the process at once, its output written, without exit handlers and without freeing its objects."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def exit_code(error: BaseException) -> int:
    """The exit code of a command that an error ended."""
    if isinstance(error, UserError):
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 143 if isinstance(error, Terminated) else 1


def _end(error: BaseException, code: int, line: str | None, argv: list[str]) -> int:
    if "--debug" in argv:
        traceback.print_exception(error)
    if line is not None:
        print(f"neq: {printable(line)}", file=sys.stderr, flush=True)
    return code


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
