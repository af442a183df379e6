"""Decoding of image files of any mode to 8-bit RGB tensors."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from neq.utils.errors import UserError, first_line
from neq.utils.images import open_image, upright


def read_image(path: str) -> torch.Tensor:
    """Decode one file.

    Args:
        path: the image file.

    Returns:
        uint8 [3, H, W], with the EXIF orientation applied.

    Raises:
        UserError: the file is truncated, corrupt, or of a mode without a defined 8-bit RGB form.
    """
    try:
        with open_image(path) as image:
            return to_tensor(image)
    except Exception as error:  # PIL's decoders raise nearly anything on a corrupt file
        raise UserError(
            f"image {path!r} cannot be read ({_reason(path, error)}); "
            "replace the file or remove it from the data set."
        ) from error


def why_unreadable(path: str) -> str | None:
    """Why `read_image` cannot decode a file; None if it can.

    A JPEG is read to its end but decoded at an eighth of its size, which takes half the time.

    Args:
        path: the image file.
    """
    try:
        with open_image(path) as image:
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            to_tensor(image)
    except Exception as error:
        return _reason(path, error)
    return None


def to_tensor(image: Image.Image) -> torch.Tensor:
    """A PIL image as uint8 [3, H, W].

    16-bit grey keeps its upper 8 bits (PIL's own conversion clips at 255); an alpha channel is dropped.

    Args:
        image: of any mode except floating point.

    Raises:
        ValueError: the mode has no defined 8-bit RGB form.
    """
    image = upright(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined 8-bit range")
    if image.mode.startswith("I"):
        image = _upper_byte(image)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns when a transparent palette goes to RGB directly
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _reason(path: str, error: Exception) -> str:
    """The error in one line."""
    with contextlib.suppress(OSError):
        if os.path.getsize(path) == 0:
            return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"
    if isinstance(error, Image.DecompressionBombError):
        return f"{first_line(error).partition(',')[0]}; scale it down"
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


def _upper_byte(image: Image.Image) -> Image.Image:
    """16-bit grey (modes I;16* and I) as 8-bit grey."""
    values = np.array(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("32-bit grey values outside 0 .. 65535 have no defined 8-bit range")
    return Image.fromarray((values // 256).astype(np.uint8))
