"""Writing a split so that nobody ever meets half of one.

It grows in OUT/.unfinished, which no reader of image folders looks into; its splits are then renamed into
OUT, train last, and OUT/.neq-split.json marks the folder as finished. The same call continues whatever was
interrupted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image, ImageOps
from rich.console import Console

from neq.preparing.mark import MARK, STARTED, UNFINISHED, Mark, read_mark, visible
from neq.preparing.planning import Item
from neq.preparing.progress import bar
from neq.preparing.published import SPLITS, Split
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, shown
from neq.utils.images import open_image

# Train comes last: without it no reader takes the folder for a data set.
_PUBLISHING_ORDER: tuple[Split, ...] = ("test", "val", "train")
JPEG_QUALITY = 95


def write_split(
    plan: Sequence[Item], out: Path, mark: Mark, link: bool, side: int | None, console: Console
) -> None:
    """Writes every image of a plan, and the mark when all are there.

    Args:
        plan: what goes where.
        out: the folder, as `finished_mark` let it pass.
        mark: what to mark the folder with; its `settings` and `plan` tell whether an unfinished split is
            the same one.
        link: make hard links instead of copies.
        side: shrink images whose smaller side has more pixels than this; none: as they are.
        console: for the progress bar.

    Raises:
        UserError: an unfinished split in OUT is another one, another process is writing it, links cannot
            be made, or an image cannot be read.
    """
    work = out / UNFINISHED
    work.mkdir(parents=True, exist_ok=True)
    with only_writer(work / "lock", out):
        started = read_mark(work / STARTED)
        if started is not None and started.plan != mark.plan:
            raise UserError(
                f"{str(work)!r} holds an unfinished split made from other lists or class names; it cannot "
                "be continued; delete it and run again."
            )
        write_text(work / STARTED, mark.model_dump_json(indent=1))
        for split in SPLITS:  # stopped while publishing: what was renamed comes back
            if (out / split).exists():
                os.replace(out / split, work / split)
        for split, folder in sorted({(item.split, item.folder) for item in plan}):
            (work / split / folder).mkdir(parents=True, exist_ok=True)
        with bar(console, "linking" if link else "writing", len(plan), "images") as done:
            for item in plan:
                _write(item, work / item.split / item.folder, link, side)
                done(1)
        _check_complete(plan, work)
        if hasattr(os, "sync"):
            os.sync()
        for split in _PUBLISHING_ORDER:
            if (work / split).exists():
                os.replace(work / split, out / split)
        os.replace(work / STARTED, out / MARK)
    shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def only_writer(lock: Path, folder: Path) -> Iterator[None]:
    """Refuses to work beside another process.

    Args:
        lock: the lock's file.
        folder: what it guards, for the message.
    """
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"another process is writing {str(folder)!r}; one at a time may; wait for it to end."
        ) from error


def _write(item: Item, folder: Path, link: bool, side: int | None) -> None:
    """One image under its name, whole or not at all; one that is there is whole."""
    target = folder / item.name
    if target.exists():
        return
    if link:
        _link(item.source, target)
        return
    temporary = folder / f".{item.name}.part"
    try:
        if side is None or not _shrink(item.source, temporary, side):
            shutil.copyfile(item.source, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _link(source: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except FileNotFoundError:
        raise
    except OSError as error:
        if isinstance(error, PermissionError) and not os.access(target.parent, os.W_OK):
            raise
        raise UserError(
            f"{str(source)!r} cannot be linked to {str(target)!r} ({error.strerror}); hard links need one "
            "file system that has them; leave out --link, or put --out beside --raw."
        ) from error


def _shrink(source: Path, target: Path, side: int) -> bool:
    """Writes the image with a smaller side of `side` pixels; false if it is not larger than that."""
    try:
        with open_image(source) as image:
            if min(image.size) <= side:
                return False
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # decoders raise nearly anything on a corrupt file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"image {str(source)!r} cannot be read ({shown(reason)}); delete its folder and run again to "
            "unpack it anew."
        ) from error
    scale = side / min(upright.size)
    size = (max(side, round(upright.width * scale)), max(side, round(upright.height * scale)))
    upright.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0).save(
        target, "JPEG", quality=JPEG_QUALITY, subsampling=0
    )
    return True


def _check_complete(plan: Sequence[Item], work: Path) -> None:
    """Holds what is on the disk against the plan: nothing less, and nothing that the plan does not have."""
    expected = {(item.split, item.folder, item.name) for item in plan}
    found = {
        (split, folder.name, file)
        for split in SPLITS
        if (work / split).exists()
        for folder in (work / split).iterdir()
        for file in visible(folder)
    }
    for split, folder, name in sorted(expected ^ found):
        path = str(work / split / folder / name)
        fault = "is missing" if (split, folder, name) in expected else "does not belong there"
        raise UserError(
            f"{path!r} {fault}; something else changes this folder; delete {str(work)!r} and run again."
        )
