"""Preparation of a published data set: downloaded, checked, and written as image folders by official split.

A split grows in OUT/.unfinished, which no reader of image folders enters. Its folders are then renamed into
OUT, train last, and OUT/.neq-split.json marks it as finished. The same call continues after an interruption.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image
from rich.console import Console

from neq.data.published.download import UnofficialError
from neq.data.published.mark import (
    MARK,
    STARTED,
    UNFINISHED,
    Mark,
    PublishedFile,
    check_counts,
    finished_mark,
)
from neq.data.published.obtain import obtain
from neq.data.published.progress_bar import progress_bar
from neq.data.published.published_set import SPLIT_FOLDERS, PublishedSet, SplitFolder, count_deviations
from neq.data.published.split_plan import PlannedImage, plan_split
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, first_line, shown
from neq.utils.images import open_image, upright

# Train is last: without it no reader takes the folder for a data set.
_PUBLISHING_ORDER: tuple[SplitFolder, ...] = ("test", "val", "train")
JPEG_QUALITY = 95


def prepare(
    published: PublishedSet,
    raw: Path,
    out: Path,
    console: Console,
    validation: float | None = None,
    link: bool = False,
    verify: bool = True,
) -> tuple[Mark, bool]:
    """Download, unpack and write a data set, skipping what is done already.

    Args:
        published: the data set.
        raw: the folder of its published files, downloaded if they are missing; nothing in it is moved or
            changed.
        out: the folder to which train, val and test are written.
        console: shows the progress.
        validation: the share (0 <= share < 1) of each class of train that becomes validation; None: the
            official splits.
        link: create hard links instead of copies.
        verify: refuse other checksums and other numbers of images than the official ones; otherwise print
            them.

    Returns:
        The mark of the finished split, and whether it was there before.

    Raises:
        UserError: raised by `obtain`, the lists, `plan_split` or `write_split`.
        UnofficialError: checksums or numbers of images are not the official ones.
    """
    settings: dict[str, str | int | float | None] = {
        "set": published.script,
        "validation": validation,
        **published.options,
    }
    mark = finished_mark(out, settings)
    if mark is not None:
        return mark, True
    found = obtain(published.name, published.downloads, raw, console, verify=verify)
    listed = published.read(raw)
    deviations = count_deviations(listed, published.counts)
    if deviations and verify:
        raise UnofficialError(
            f"these lists are not the official ones of {published.script}: {'; '.join(deviations)}; put the "
            "published files into --raw"
        )
    for deviation in deviations:
        console.print(f"warning: {deviation}", highlight=False)
    plan = plan_split(listed, raw, validation)
    counts = Counter(image.split for image in plan)
    mark = Mark(
        settings=settings,
        counts={folder: counts[folder] for folder in SPLIT_FOLDERS.values() if counts[folder]},
        classes=len({image.class_folder for image in plan}),
        official_counts=not deviations,
        sources=[
            PublishedFile(file=download.name, url=download.url, md5=md5)
            for download, md5 in zip(published.downloads, found, strict=True)
        ],
    )
    write_split(plan, out, mark, link, published.small_side, console)
    return mark, False


def write_split(
    plan: Sequence[PlannedImage], out: Path, mark: Mark, link: bool, side: int | None, console: Console
) -> None:
    """Write every image of a plan, and the mark once all are there.

    Args:
        plan: which image goes where.
        out: a folder that `finished_mark` has accepted.
        mark: the mark to write; its `settings` decide whether an unfinished split is continued.
        link: create hard links instead of copies.
        side: shrink images whose smaller side has more pixels than this; None: keep all sizes.
        console: shows the progress.

    Raises:
        UserError: the unfinished split in OUT has other images, another process is writing it, links
            cannot be created, or an image cannot be read.
    """
    work = out / UNFINISHED
    work.mkdir(parents=True, exist_ok=True)
    with _only_writer(work / "lock", out):
        write_text(work / STARTED, mark.model_dump_json(indent=1))
        for split in _PUBLISHING_ORDER:  # interrupted while publishing: move back what was renamed
            if (out / split).exists():
                os.replace(out / split, work / split)
        for split, folder in sorted({(image.split, image.class_folder) for image in plan}):
            (work / split / folder).mkdir(parents=True, exist_ok=True)
        with progress_bar(console, "linking" if link else "writing", len(plan), "images") as advance:
            for image in plan:
                _write(image, work / image.split / image.class_folder, link, side)
                advance(1)
        check_counts(work, mark)
        if hasattr(os, "sync"):
            os.sync()
        for split in _PUBLISHING_ORDER:
            if (work / split).exists():
                os.replace(work / split, out / split)
        os.replace(work / STARTED, out / MARK)
    shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _only_writer(lock: Path, out: Path) -> Iterator[None]:
    """Refuse to write a folder that another process is writing."""
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"another process is writing {str(out)!r}; only one may write it at a time; wait until it ends"
        ) from error


def _write(image: PlannedImage, folder: Path, link: bool, side: int | None) -> None:
    """Write one image under its name, complete or not at all; an image that is there is complete."""
    target = folder / image.name
    if target.exists():
        return
    if link:
        _link(image.source, target)
        return
    temporary = folder / f".{image.name}.part"
    try:
        if side is None or not _shrink(image.source, temporary, side):
            shutil.copyfile(image.source, temporary)
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
            "file system that supports them; leave out --link, or put --out beside --raw"
        ) from error


def _shrink(source: Path, target: Path, side: int) -> bool:
    """Write the image with a smaller side of `side` pixels; False if it is not larger than that."""
    try:
        with open_image(source) as image:
            if min(image.size) <= side:
                return False
            turned = upright(image).convert("RGB")
    except Exception as error:  # decoders raise nearly anything on a corrupt file
        raise UserError(
            f"image {str(source)!r} cannot be read ({shown(first_line(error))}); delete its folder and run "
            "again to unpack it"
        ) from error
    scale = side / min(turned.size)
    size = (max(side, round(turned.width * scale)), max(side, round(turned.height * scale)))
    turned.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0).save(
        target, "JPEG", quality=JPEG_QUALITY, subsampling=0
    )
    return True
