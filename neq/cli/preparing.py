"""The command line that the scripts of train_test_split share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from neq.cli.parsing import Parser
from neq.preparing import Mark, Published, prepare
from neq.utils.console import Console
from neq.utils.errors import UserError
from neq.utils.exit_codes import run_command

_STOPPED = "stopped; the same command goes on from here"
_VALIDATION = (
    "cut this share (0 <= SHARE < 1) of each class off train as val, the same images every time; an official "
    "validation split goes back to train before (default: the official splits)"
)


def run_script(
    about: str,
    describe: Callable[[argparse.Namespace], Published],
    add_flags: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: list[str] | None = None,
) -> int:
    """Runs a script that prepares one data set.

    Args:
        about: what the data set is, where it comes from and under which licence; for --help.
        describe: from the parsed flags to the data set.
        add_flags: adds the flags that only this set has.
        argv: the arguments; none: those of the process.

    Returns:
        The exit code: 0, 2 for anything the user or the machine got wrong, 130 after Ctrl-C.
    """

    def command(arguments: list[str]) -> int:
        flags = _parse(about, add_flags, arguments)
        published = describe(flags)
        if flags.link and published.small_side is not None:
            raise UserError(
                "--link and --small-side were given; a link cannot be shrunk; leave one of them out."
            )
        console = Console()
        try:
            mark, was_there = prepare(
                published, flags.raw, flags.out, console, flags.validation, flags.link, not flags.unverified
            )
        except OSError as error:
            raise UserError(_disk_fault(error, flags.out)) from error
        _report(console, published, mark, flags.out, was_there)
        return 0

    return run_command(command, sys.argv[1:] if argv is None else argv, _STOPPED)


def _parse(
    about: str, add_flags: Callable[[argparse.ArgumentParser], None] | None, arguments: list[str]
) -> argparse.Namespace:
    parser = Parser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
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
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    if add_flags is not None:
        add_flags(parser)
    flags = parser.parse_args(arguments)
    if flags.validation is not None and not 0 <= flags.validation < 1:
        raise UserError(f"--validation is {flags.validation}; a share from 0 to below 1 is allowed, as 0.2.")
    if flags.raw == flags.out or flags.out in flags.raw.parents:
        raise UserError(
            f"--raw {str(flags.raw)!r} lies in --out {str(flags.out)!r}; --out becomes a data set of its "
            "own; give two folders."
        )
    return flags


def _folder(text: str) -> Path:
    return Path(os.path.abspath(Path(text).expanduser()))


def _disk_fault(error: OSError, out: Path) -> str:
    """What a disk refused, in one line."""
    where = str(error.filename2 or error.filename or out)
    return (
        f"{where!r} cannot be read or written ({error.strerror or error}); free space or correct the "
        "permissions, then run the same command again: it goes on from here."
    )


def _report(console: Console, published: Published, mark: Mark, out: Path, was_there: bool) -> None:
    """Counts per split beside the official ones, and what to do with the folder."""
    if was_there:
        console.print(f"{out} is finished already; nothing was done", highlight=False)
    table = Table("split", "images", "official", title=f"{published.name}: {mark.classes} classes")
    for split, count in mark.counts.items():
        official = published.counts.get(split)
        table.add_row(split, f"{count:,}", "-" if official is None else f"{official:,}")
    console.print(table)
    if mark.settings["validation"] is not None:
        console.print("val was cut by --validation; train and val together are official", highlight=False)
    if not mark.official_counts:
        console.print("warning: made with --unverified; not the official numbers of images", highlight=False)
    unchecked = [source.file for source in mark.sources if source.md5 is None]
    if unchecked:
        files = ", ".join(unchecked)
        console.print(f"unpacked before, so its checksum is not known: {files}", highlight=False)
    console.print(f"train on it: --dataset image_folder --root {out}", highlight=False)
