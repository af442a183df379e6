"""The command line that the scripts of train_test_split share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from neq.cli.parsing import Parser
from neq.data.published import Mark, PublishedSet, prepare
from neq.data.published.download import UnofficialError
from neq.data.published.published_set import SPLIT_FOLDERS
from neq.utils.console import Console
from neq.utils.errors import UserError
from neq.utils.exit_codes import run_command

_STOPPED = "stopped; run the same command again to continue"
_VALIDATION = (
    "move this share (0 <= SHARE < 1) of each class from train to val, always the same images; an official "
    "validation split is merged into train first (default: the official splits)"
)


def run_script(
    about: str,
    describe: Callable[[argparse.Namespace], PublishedSet],
    add_flags: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: list[str] | None = None,
) -> int:
    """Run a script that prepares one data set.

    Args:
        about: what the data set is, its source and its licence; for --help.
        describe: from the parsed flags to the data set.
        add_flags: adds the flags that only this set has.
        argv: the arguments; None: those of the process.

    Returns:
        The exit code: 0, 2 for any mistake of the user or the machine, 130 after Ctrl-C.
    """

    def command(arguments: list[str]) -> int:
        flags = _parse(about, add_flags, arguments)
        published = describe(flags)
        if flags.link and published.small_side is not None:
            raise UserError(
                "--link and --small-side were given; a link cannot be shrunk; leave one of them out"
            )
        console = Console()
        try:
            mark, was_there = prepare(
                published, flags.raw, flags.out, console, flags.validation, flags.link, not flags.unverified
            )
        except UnofficialError as error:
            raise UserError(f"{error}, or give --unverified to use it as it is") from error
        except OSError as error:
            raise UserError(_disk_fault(error, flags.out)) from error
        _report(console, published, mark, flags.out, was_there)
        return 0

    return run_command(command, sys.argv[1:] if argv is None else argv, _STOPPED)


def _parse(
    about: str, add_flags: Callable[[argparse.ArgumentParser], None] | None, arguments: list[str]
) -> argparse.Namespace:
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--raw", metavar="DIR", type=_folder, required=True, help="published files; downloaded if missing"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=_folder, required=True, help="new folder for train, val, test"
    )
    parser.add_argument("--validation", metavar="SHARE", type=float, help=_VALIDATION)
    parser.add_argument("--link", action="store_true", help="hard links instead of copies")
    parser.add_argument(
        "--unverified", action="store_true", help="accept other checksums and counts than the official ones"
    )
    if add_flags is not None:
        add_flags(parser)
    flags = parser.parse_args(arguments)
    if flags.validation is not None and not 0 <= flags.validation < 1:
        raise UserError(f"--validation is {flags.validation}; a share from 0 to below 1 is allowed, as 0.2")
    if flags.raw == flags.out or flags.out in flags.raw.parents:
        raise UserError(
            f"--raw {str(flags.raw)!r} lies in --out {str(flags.out)!r}; --out becomes a data set of its "
            "own; give two folders"
        )
    return flags


def _folder(text: str) -> Path:
    return Path(os.path.abspath(Path(text).expanduser()))


def _disk_fault(error: OSError, out: Path) -> str:
    """An error of the disk in one line."""
    where = str(error.filename2 or error.filename or out)
    return (
        f"{where!r} cannot be read or written ({error.strerror or error}); free space or correct the "
        "permissions, then run the same command again to continue"
    )


def _report(console: Console, published: PublishedSet, mark: Mark, out: Path, was_there: bool) -> None:
    """Print the counts of each split beside the official ones, and how to train on the folder."""
    if was_there:
        console.lines(f"{out} is finished already; nothing was done")
    table = Table("split", "images", "official", title=f"{published.script}: {mark.classes} classes")
    official = {SPLIT_FOLDERS[split]: f"{count:,}" for split, count in published.counts.items()}
    for folder, count in mark.counts.items():
        table.add_row(folder, f"{count:,}", official.get(folder, "-"))
    console.print(table)
    if mark.settings["validation"] is not None:
        console.lines("val was cut by --validation; train and val together are official")
    if not mark.official_counts:
        console.lines("warning: made with --unverified; not the official numbers of images")
    unchecked = [source.file for source in mark.sources if source.md5 is None]
    if unchecked:
        files = ", ".join(unchecked)
        console.lines(f"unpacked before, so its checksum is not known: {files}")
    console.lines(f"train on it: --dataset image_folder --root {out}")
