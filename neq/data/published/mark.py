"""The mark of a prepared split: what was written, from which files, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from neq.data.published.published_set import SplitFolder
from neq.utils.errors import UserError, shown

MARK = ".neq-split.json"
UNFINISHED = ".unfinished"
STARTED = "started.json"


class PublishedFile(BaseModel):
    """A published file and its md5 as found; None if it was unpacked by somebody else."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    url: str
    md5: str | None


class Mark(BaseModel):
    """Record of a prepared split.

    Attributes:
        settings: the set's name and every option that decides where images go.
        counts: images in the folder of each split that has any.
        classes: class folders of each split.
        official_counts: whether the official splits had the official numbers of images.
        sources: the files it was made from.
    """

    model_config = ConfigDict(frozen=True)
    settings: dict[str, str | int | float | None]
    counts: dict[SplitFolder, int]
    classes: int
    official_counts: bool
    sources: list[PublishedFile]


def read_mark(path: Path) -> Mark | None:
    """The mark in a file; None if there is no file.

    Raises:
        UserError: the file is something else.
    """
    try:
        return Mark.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise UserError(
            f"{str(path)!r} is not a mark written by this script; delete {str(path.parent)!r} or give "
            "another --out"
        ) from error


def finished_mark(out: Path, settings: Mapping[str, object]) -> Mark | None:
    """The mark of a finished split in a folder.

    Args:
        out: the folder, which may not exist.
        settings: of the split that is wanted: the set's name and every option that decides where images go.

    Returns:
        The mark; None if the folder is empty or holds an unfinished split of these settings.

    Raises:
        UserError: the folder holds something else, a split of other settings, or one that was changed since.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {str(out)!r} is a file; give a folder")
    mark = read_mark(out / MARK)
    if mark is not None:
        _check_same(mark.settings, settings, "a finished split", f"delete {str(out)!r}")
        check_counts(out, mark)
        return mark
    started = read_mark(out / UNFINISHED / STARTED)
    if started is not None:
        where = str(out / UNFINISHED)
        _check_same(started.settings, settings, "an unfinished split", f"delete {where!r}")
        return None
    others = sorted(path.name for path in out.iterdir() if path.name != UNFINISHED) if out.exists() else []
    if others:
        raise UserError(
            f"--out {str(out)!r} holds {others[0]!r} ({len(others)} entries in all) and no mark of this "
            "script; an empty or new folder is needed; give another --out"
        )
    return None


def _check_same(found: Mapping[str, object], wanted: Mapping[str, object], what: str, remedy: str) -> None:
    different = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    for key in different[:1]:
        raise UserError(
            f"--out holds {what} with {key} {shown(found.get(key))}, but {key} {shown(wanted.get(key))} is "
            f"requested; {remedy}, or give another --out"
        )


def check_counts(folder: Path, mark: Mark) -> None:
    """Compare the images in each split's folder with what the mark counts.

    Raises:
        UserError: there are more or fewer.
    """
    for split, count in mark.counts.items():
        found = sum(1 for _ in (folder / split).glob("*/[!.]*"))
        if found != count:
            raise UserError(
                f"{str(folder / split)!r} has {found:,} images, but {count:,} belong there; "
                f"another program or other lists have changed it; delete {str(folder)!r} and run again"
            )
