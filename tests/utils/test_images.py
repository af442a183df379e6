from pathlib import Path

import pytest
from PIL import Image, ImageOps

from neq.utils.images import endings, open_image, upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pil_does(tmp_path: Path, orientation: int) -> None:
    image = Image.effect_noise((6, 4), 64)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "photo.png", exif=exif)
    with open_image(tmp_path / "photo.png") as found:
        expected = ImageOps.exif_transpose(found)
        assert expected is not None
        assert upright(found).tobytes() == expected.tobytes()


def test_endings_are_those_that_can_be_read() -> None:
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".tif", ".bmp", ".jp2"} <= {*endings()}
    assert not {".pdf", ".eps", ".pfm", ".txt"} & {*endings()}
