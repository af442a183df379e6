"""Images that cannot be read are found before training starts, not when they are first drawn.

Every file is decoded once; the verdict is kept in the cache folder for as long as no file changes. So the
images of a run are known when it starts: what is left out is left out of every epoch, and a broken image
neither ends a run after hours nor keeps it from being resumed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import PIL
from rich.console import Console
from rich.progress import track

from neq.data.decoding import why_unreadable
from neq.data.disk_memo import file_stamp, memoize
from neq.data.sources import Source, without
from neq.utils.errors import UserError

# Fewer are checked in a moment.
_MANY = 5000
_NAMED = 3


def check_images(source: Source, on_bad_image: str) -> tuple[Source, tuple[str, ...]]:
    """The source without the images that cannot be read, and their files.

    Args:
        source: the data set; images that are held in memory are good.
        on_bad_image: "skip" leaves them out, "error" refuses.

    Raises:
        UserError: an image cannot be read under "error", or none of a class can be read.
    """
    bad = unreadable(source.files)
    if not bad:
        return source, ()
    first = next(iter(bad))
    if on_bad_image == "error":
        others = f", and {len(bad) - 1} more of {len(source.files)} images" if len(bad) > 1 else ""
        raise UserError(
            f"image {source.files[first]!r} cannot be read ({bad[first]}){others}; replace or remove what is "
            "broken, or leave it out with --on_bad_image skip."
        )
    kept = without(source, list(bad))
    lost = set(source.labels[list(bad)].tolist()) - set(kept.labels.tolist())
    if lost:
        name = source.classes[min(lost)]
        raise UserError(f"no image of class {name!r} can be read; replace them or remove the class.")
    return kept, tuple(source.files[index] for index in bad)


def unreadable(files: Sequence[str]) -> dict[int, str]:
    """Why images cannot be read, by number, for those that cannot.

    Args:
        files: every image's file.
    """
    if not files:
        return {}
    bad: list[int] = memoize("checked", file_stamp(files, PIL.__version__), lambda: _find_bad(files))
    # What was broken is looked at again: it may have been out of reach only.
    reasons = {index: why_unreadable(files[index]) for index in bad}
    return {index: reason for index, reason in reasons.items() if reason is not None}


def _find_bad(files: Sequence[str]) -> list[int]:
    quiet = len(files) < _MANY or not sys.stderr.isatty()
    console = Console(stderr=True)
    numbered = track(
        enumerate(files), "checking images", len(files), console=console, transient=True, disable=quiet
    )
    return [index for index, file in numbered if why_unreadable(file) is not None]


def describe_skipped(files: Sequence[str], total: int) -> str:
    """A line about the images that were left out.

    Args:
        files: those images' files; at least one.
        total: images with them.
    """
    named = ", ".join(files[:_NAMED]) + (", ..." if len(files) > _NAMED else "")
    return f"{len(files)} of {total} images cannot be read and are left out: {named}"
