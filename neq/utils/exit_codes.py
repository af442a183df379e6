"""Running a command: what a mistake, a fault or a signal ends with."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from neq.utils.errors import UserError, first_line, printable, shown

# What is wrong with a place that the user gave, by the system's word for it.
_OF_PLACES = {
    errno.ENAMETOOLONG: "is too long for the name of a file",
    errno.EACCES: "may not be read or written (permission denied); make it so, or give another",
    errno.ENOTDIR: "lies below a file, where no folder is; give another",
}


class Terminated(BaseException):
    """SIGTERM arrived."""


class Ended(Exception):
    """One of several processes has ended.

    Args:
        code: to exit with.
        line: that says why; none: another process says it.
    """

    def __init__(self, code: int, line: str | None = None) -> None:
        super().__init__(line)
        self.code, self.line = code, line


RUN_STOPPED = "stopped at once; the same command with --resume goes on from the last checkpoint"


def run_command(
    command: Callable[[list[str]], int], argv: list[str], stopped: str | None = RUN_STOPPED
) -> int:
    """Runs a command and turns whatever ends it into one line and an exit code.

    Args:
        command: takes the arguments, gives the exit code.
        argv: the arguments; with --debug among them tracebacks are shown.
        stopped: what is said after SIGINT or SIGTERM; none: another process says it.

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
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C changes nothing any more
            raise
    except UserError as error:
        return _end(error, exit_code(error), str(error), argv)
    except (KeyboardInterrupt, Terminated) as error:
        return _end(error, exit_code(error), str(error) or stopped, argv)
    except Ended as error:
        return _end(error, error.code, error.line, argv)
    except BrokenPipeError:
        # Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None and error.errno in _OF_PLACES:
            return _end(error, 2, f"{shown(error.filename)} {_OF_PLACES[error.errno]}", argv)
        return _end(error, 1, f"{first_line(error)} ({type(error).__name__}; --debug shows where)", argv)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def exit_code(error: BaseException) -> int:
    """What ends a command, as its exit code."""
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
