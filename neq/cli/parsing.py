"""The parser of every command's arguments."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from neq.config.amounts import bytes_of, seconds_of
from neq.utils.errors import UserError

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError, so that a mistake is one line and exit code 2.

    Args:
        options: as of argparse. Names are not abbreviated, and there is always --debug.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.add_argument("--debug", action="store_true", help="show tracebacks")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of argparse; an argument that no path can hold is refused."""
        for each in args or ():
            if "\0" in each:
                self.error(f"argument {each!r} holds a NUL character; leave it out")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{self.prog}: {message}; see --help")

    def add_runs_dir(self) -> None:
        """Adds --runs-dir, a path."""
        self.add_argument(
            "--runs-dir",
            type=_folder,
            default="runs",
            metavar="DIR",
            help="folder of all runs (default: runs)",
        )

    def add_storage(self) -> None:
        """Adds --storage, of sweeps."""
        self.add_argument(
            "--storage", metavar="URL",
            help="postgresql://USER@HOST/DATABASE for many machines (default: sweeps.db beside the runs)",
        )  # fmt: skip

    def add_workers(self) -> None:
        """Adds --workers, a number; None is auto."""
        self.add_argument(
            "--workers", type=_count_or_auto, default=1, metavar="N|auto",
            help="runs at a time; auto: as many as cores and the memory of the first run allow (default: 1)",
        )  # fmt: skip

    def add_limits(self, required: bool = True, of: str = "the whole run") -> None:
        """Adds --memory, bytes, and --deadline, seconds, infinite by default.

        Args:
            required: whether --memory is.
            of: what the deadline is for, in help.
        """
        self.add_argument(
            "--memory", type=size, required=required, metavar="SIZE",
            help="that training may add to the process beside Python, libraries and images, as 256MiB",
        )  # fmt: skip
        self.add_argument(
            "--deadline", type=seconds, default=math.inf, metavar="TIME",
            help=f"of {of}, as 90s, 10min, 2h (default: none)",
        )  # fmt: skip

    def add_config_file(self) -> None:
        """Adds --config-file."""
        self.add_argument(
            "--config-file",
            metavar="NAME|PATH",
            help="configuration that cells start from unless their sweep file names one (default: transfer)",
        )


class ResultsParser(Parser):
    """The parser of `neq results NAME FILE ...`.

    Args:
        name: of the command.
        description: in its help.
        needs_file: whether a FILE is required; false where an option can name one instead.
    """

    def __init__(self, name: str, description: str, needs_file: bool = True) -> None:
        super().__init__(prog=f"neq results {name}", description=description)
        self.add_argument(
            "files",
            nargs="+" if needs_file else "*",
            metavar="FILE",
            help="sweep files, as policies/digits/su.yaml, or folders of runs",
        )
        self.add_runs_dir()
        self.add_config_file()


def check_new_file(flag: str, path: Path, force: bool) -> None:
    """Checks, before work that takes long, that a file can be written.

    Raises:
        UserError: its folder does not exist, or something is there already.
    """
    if not path.parent.is_dir():
        raise UserError(f"{flag} {path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise UserError(f"{flag} {path} is a folder; give a file")
    if path.exists() and not force:
        raise UserError(f"{flag} {path} exists; --force replaces it")


def count(text: str) -> int:
    """A whole number from 1 on, as argparse reads it."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a whole number from 1 on is expected")
    return int(text)


def seconds(text: str) -> float:
    """The seconds of `10min`, `90s` or `1.5h`, as argparse reads them."""
    return _read(seconds_of, text)


def size(text: str) -> int:
    """The bytes of `256MiB`, as argparse reads them."""
    return _read(bytes_of, text)


def _read(amount: Callable[[str], Number], text: str) -> Number:
    try:
        return amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count_or_auto(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto") from None


def _folder(text: str) -> Path:
    """A folder, which need not exist."""
    if not text:
        raise argparse.ArgumentTypeError("'' is not allowed: a folder is expected")
    try:
        folder = Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {error}") from None
    if folder.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is a file; give the folder of the runs")
    return folder
