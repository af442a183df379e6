"""The parser of every command's arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from neq.utils.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError, so that a mistake is one line and exit code 2."""

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

    def add_config_file(self) -> None:
        """Adds --config-file."""
        self.add_argument(
            "--config-file",
            metavar="NAME|PATH",
            help="configuration that cells start from unless their sweep file names one (default: transfer)",
        )


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
