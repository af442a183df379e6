import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neq.data.decoding import read_image, why_unreadable
from neq.utils.errors import UserError
from tests.data.image_files import exif_block, png, with_exif

# Each corner of a 6 x 4 image has its own grey.
GREY = np.array([[0, 40, 80, 120], [10, 50, 90, 130], [20, 60, 100, 255]], dtype=np.uint8).repeat(2, axis=0)


def rgb() -> np.ndarray:
    return np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


def saved(folder: Path, image: Image.Image, name: str = "image.png", **options: Any) -> str:
    path = folder / name
    image.save(path, **options)
    return str(path)


def channels(array: np.ndarray) -> torch.Tensor:
    """[H, W] or [H, W, 3] as [3, H, W]."""
    if array.ndim == 2:
        array = np.stack([array] * 3, axis=2)
    return torch.from_numpy(array).permute(2, 0, 1)


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path, Image.fromarray(rgb())))
    assert image.dtype == torch.uint8
    assert torch.equal(image, channels(rgb()))


def test_grey_is_repeated(tmp_path: Path) -> None:
    assert torch.equal(read_image(saved(tmp_path, Image.fromarray(GREY))), channels(GREY))


def test_grey_with_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(GREY).convert("LA")
    assert torch.equal(read_image(saved(tmp_path, image)), channels(GREY))


def test_rgb_with_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(rgb()).convert("RGBA")
    image.putalpha(100)
    assert torch.equal(read_image(saved(tmp_path, image)), channels(rgb()))


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(rgb()).convert("P", palette=Image.Palette.ADAPTIVE)
    expected = np.array(image.convert("RGB"))
    assert torch.equal(read_image(saved(tmp_path, image)), channels(expected))


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(rgb()).convert("P", palette=Image.Palette.ADAPTIVE)
    expected = np.array(image.convert("RGB"))
    path = saved(tmp_path, image, transparency=bytes([0, 128, 255]))
    assert torch.equal(read_image(path), channels(expected))


def test_bilevel(tmp_path: Path) -> None:
    bits = GREY > 60
    path = saved(tmp_path, Image.fromarray(bits))
    with Image.open(path) as image:
        assert image.mode == "1"
    assert torch.equal(read_image(path), channels(bits.astype(np.uint8) * 255))


def test_cmyk(tmp_path: Path) -> None:
    image = Image.fromarray(rgb()).convert("CMYK")
    path = saved(tmp_path, image, "image.tif")
    assert torch.equal(read_image(path), channels(rgb()))
    path = saved(tmp_path, image, "image.jpg", quality=95)
    assert read_image(path).shape == (3, 6, 4)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY.astype(np.uint16) * 257))
    with Image.open(path) as image:
        assert image.mode == "I;16"
    assert torch.equal(read_image(path), channels(GREY))


def test_16_bit_grey_read_as_32_bit(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY.astype(np.int32) * 257), "image.pgm")
    with Image.open(path) as image:
        assert image.mode == "I"
    assert torch.equal(read_image(path), channels(GREY))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(rgb())
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    path = saved(tmp_path, image, exif=exif)
    assert torch.equal(read_image(path), channels(np.rot90(rgb(), -1).copy()))


# One tag whose value PIL can read but not write again.
ODD_TAGS = {
    "resolution unit as text": (0x0128, 2, 2, b"2\0\0\0"),
    "x resolution as text": (0x011A, 2, 3, b"72\0\0"),
    "x resolution as short": (0x011A, 3, 1, b"\x48\0\0\0"),
    "description as float": (0x010E, 11, 1, b"\0\0\x80\x3f"),
    "description as number": (0x010E, 4, 1, b"\x01\0\0\0"),
    "positioning as float": (0x0213, 11, 1, b"\0\0\x80\x3f"),
    "date as short": (0x0132, 3, 1, b"\x01\0\0\0"),
    "resolution unit as float": (0x0128, 11, 1, b"\0\0\0\x40"),
}


@pytest.mark.parametrize("kind", ODD_TAGS)
def test_an_odd_exif_tag_neither_refuses_a_photo_nor_stops_its_turn(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(rgb())
    path = saved(tmp_path, image, "image.jpg", quality=95)
    plain = read_image(path)
    block = exif_block((0x0112, 3, 1, b"\x06\0\0\0"), ODD_TAGS[kind])
    Path(path).write_bytes(with_exif(Path(path).read_bytes(), block))
    assert torch.equal(read_image(path), plain.rot90(-1, (1, 2)))
    assert why_unreadable(path) is None


def test_a_damaged_exif_block_warns_of_nothing_and_turns_nothing(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, Image.fromarray(rgb()), "image.jpg"))
    plain, content = read_image(str(path)), path.read_bytes()
    with warnings.catch_warnings(record=True, action="always") as caught:
        for block in (b"", b"II", b"II*\0\x08\0\0\0\xff\xff", exif_block((0x0112, 3, 1, b"\x09\0\0\0"))):
            path.write_bytes(with_exif(content, block))
            assert torch.equal(read_image(str(path)), plain)
            assert why_unreadable(str(path)) is None
    assert caught == []


def test_an_image_of_too_many_pixels_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "panorama.png"
    with warnings.catch_warnings(record=True, action="always") as caught:
        path.write_bytes(png(14_000, 14_000))
        with pytest.raises(
            UserError, match=r"panorama.png'.*196000000 pixels.*limit of 178956970 pixels.*scale it down"
        ):
            read_image(str(path))
        path.write_bytes(png(12_000, 12_000))  # PIL warns
        assert "pixels" not in (why_unreadable(str(path)) or "")
    assert caught == []


@pytest.mark.parametrize(
    "array",
    [GREY.astype(np.float32), np.full((4, 4), 70000, np.int32), np.full((4, 4), -1, np.int32)],
    ids=["float", "above 16 bits", "negative"],
)
def test_an_undefined_range_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"image\.tif.*no defined 8-bit range"):
        read_image(saved(tmp_path, Image.fromarray(array), "image.tif"))


@pytest.mark.parametrize("name", ["image.jpg", "image.png"])
@pytest.mark.parametrize("size", [0, 2, 40, -40], ids=["zero", "two", "head", "tail cut"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = Path(saved(tmp_path, Image.fromarray(noise), name))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError) as error:
        read_image(str(path))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(b"this is no image" * 100)
    with pytest.raises(UserError, match=r"image\.jpg"):
        read_image(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.jpg"):
        read_image(str(tmp_path / "gone.jpg"))
