"""Opening an image without trusting it."""

from __future__ import annotations

import os
from functools import cache

from PIL import Image

# Those of photos. PIL goes by what a file holds, whatever its ending, and would start other programs for some
# (EPS: Ghostscript).
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """An image of one of FORMATS, to be closed; its pixels are read when they are asked for.

    Raises:
        OSError: the file cannot be read, or is of no such format.
        Exception: nearly any other, where it is damaged.
    """
    return Image.open(path, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this PIL was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
