"""Opening an image without trusting it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from functools import cache
from typing import IO

from PIL import ExifTags, Image

# Those of photos. PIL goes by what a file holds, whatever its ending, and would start other programs for some
# (EPS: Ghostscript).
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000", "HEIF")
# EXIF orientation -> what turns the image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextlib.contextmanager
def open_image(path: str | os.PathLike[str] | IO[bytes]) -> Iterator[Image.Image]:
    """An image of one of FORMATS; its pixels are read when they are asked for.

    PIL's warnings (odd metadata, many pixels) are silenced within the context: they do not name the file.

    Raises:
        OSError: the file cannot be read, or is of no such format.
        Exception: nearly any other, where it is damaged.
    """
    with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_formats()) as image:
        yield image


def upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF orientation says; metadata that cannot be read turns nothing.

    PIL's own `exif_transpose` writes all other tags anew, and fails where one of them has an odd type.
    """
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the parser raises nearly anything on a damaged block
        turn = None
    return image if turn is None else image.transpose(turn)


@cache
def endings() -> tuple[str, ...]:
    """The endings of the files that are read, in lower case: `.jpg` and so on."""
    formats = _formats()
    read = {ending for ending, name in Image.registered_extensions().items() if name in formats}
    return tuple(sorted(read - {".pfm"}))  # floating-point pixels


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this PIL reads; HEIF only with pillow-heif."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)
