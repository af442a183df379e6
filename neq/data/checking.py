"""Detection of unreadable images before training starts.

Every file is decoded once; the result is kept in the cache folder until a file changes. The images of a run
are thus known when it starts: the same images are left out of every epoch, and a broken image neither ends a
run after hours nor prevents it from being resumed.
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

# Checking fewer takes no time worth a progress bar.
_MANY = 5000
_NAMED = 3


def check_images(source: Source, on_bad_image: str) -> tuple[Source, tuple[str, ...]]:
    """The data set without unreadable images, and the files of these.

    Args:
        source: the data set; images in memory need no check.
        on_bad_image: "skip" leaves unreadable images out, "error" raises.

    Raises:
        UserError: an image is unreadable and `on_bad_image` is "error", or all images of a class are.
    """
    bad = unreadable(source.files)
    if not bad:
        return source, ()
    first = next(iter(bad))
    if on_bad_image == "error":
        others = f", and {len(bad) - 1} more of {len(source.files)} images" if len(bad) > 1 else ""
        raise UserError(
            f"image {source.files[first]!r} cannot be read ({bad[first]}){others}; replace or remove broken "
            "files, or leave them out with --on_bad_image skip."
        )
    kept = without(source, list(bad))
    lost = set(source.labels[list(bad)].tolist()) - set(kept.labels.tolist())
    if lost:
        name = source.classes[min(lost)]
        raise UserError(f"no image of class {name!r} can be read; replace them or remove the class.")
    return kept, tuple(source.files[index] for index in bad)


def unreadable(files: Sequence[str]) -> dict[int, str]:
    """The unreadable images: number -> reason.

    Args:
        files: the file of every image.
    """
    if not files:
        return {}
    bad: list[int] = memoize("checked", file_stamp(files, PIL.__version__), lambda: _find_bad(files))
    # Files that were unreadable are checked again: they may only have been out of reach.
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
    """One line about the images that were left out.

    Args:
        files: of these images; at least one.
        total: number of images including them.
    """
    named = ", ".join(files[:_NAMED]) + (", ..." if len(files) > _NAMED else "")
    return f"{len(files)} of {total} images cannot be read and are left out: {named}"
