import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neq.config.schema import DataProvider
from neq.data import checking
from neq.data.checking import check_images, describe_skipped, unreadable
from neq.data.decoding import read_image, why_unreadable
from neq.data.image_folder import open_image_folder
from neq.data.sources import Source
from neq.data.splits import split
from neq.utils.errors import UserError
from tests.data.miniatures import jpeg


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def photos(root: Path, each: int = 20) -> Source:
    for number, name in enumerate(("ash", "oak")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            (root / name / f"{index:02d}.jpg").write_bytes(jpeg(100 * number + index))
    return open_image_folder(str(root))


def broken(root: Path) -> list[str]:
    """Breaks three images, each in its own way; gives their names."""
    (root / "ash" / "03.jpg").write_bytes(b"")
    (root / "ash" / "07.jpg").write_bytes(jpeg(7)[:-150])
    (root / "oak" / "05.jpg").unlink()
    (root / "oak" / "05.jpg").symlink_to(root / "gone.jpg")
    return ["ash/03.jpg", "ash/07.jpg", "oak/05.jpg"]


def test_good_images_pass(tmp_path: Path) -> None:
    source = photos(tmp_path / "p")
    for setting in ("error", "skip"):
        assert check_images(source, setting) == (source, ())


def test_broken_images_refuse_the_run(tmp_path: Path) -> None:
    photos(tmp_path / "p")
    broken(tmp_path / "p")
    with pytest.raises(UserError) as caught:
        check_images(open_image_folder(str(tmp_path / "p")), "error")
    message = str(caught.value)
    assert f"image '{tmp_path}/p/ash/03.jpg' cannot be read (the file is empty), and 2 more of 40" in message
    assert "--on_bad_image skip" in message
    assert len(message.splitlines()) == 1


def test_broken_images_are_left_out(tmp_path: Path) -> None:
    photos(tmp_path / "p")
    names = broken(tmp_path / "p")
    whole = open_image_folder(str(tmp_path / "p"))
    source, skipped = check_images(whole, "skip")
    assert [str(Path(file).relative_to(tmp_path / "p")) for file in skipped] == names
    assert len(source.labels) == len(source.files) == 37
    assert np.bincount(source.labels).tolist() == [18, 19]
    for index, file in enumerate(source.files):
        assert np.array_equal(source.image(index), read_image(file))
    assert source.fingerprint != whole.fingerprint
    again, _ = check_images(open_image_folder(str(tmp_path / "p")), "skip")
    assert again.fingerprint == source.fingerprint
    settings = DataProvider(velocity_images=2)
    first, second = split(source, settings, 0), split(again, settings, 0)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert describe_skipped(skipped, 40).startswith("3 of 40 images cannot be read and are left out: ")
    assert describe_skipped([*skipped, "x.jpg"], 40).endswith(", ...")


def test_a_class_of_broken_images_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "p"
    photos(root, each=2)
    for path in (root / "oak").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="no image of class 'oak' can be read"):
        check_images(open_image_folder(str(root)), "skip")


def test_good_images_are_not_decoded_twice(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photos(tmp_path / "p")
    looked_at: list[str] = []

    def looking(path: str) -> str | None:
        looked_at.append(path)
        return why_unreadable(path)

    monkeypatch.setattr(checking, "why_unreadable", looking)
    assert unreadable(source.files) == {}
    assert looked_at == list(source.files)
    looked_at.clear()
    assert unreadable(source.files) == {}
    assert looked_at == []
    assert len(list((cache / "checked").iterdir())) == 1
    # What breaks later has another time of change, even at the same size.
    path = Path(source.files[4])
    path.write_bytes(bytes(path.stat().st_size))
    assert list(unreadable(source.files)) == [4]
    assert looked_at.count(str(path)) == 2


def test_a_broken_image_is_looked_at_again(tmp_path: Path) -> None:
    source = photos(tmp_path / "p")
    path = Path(source.files[2])
    content, before = path.read_bytes(), path.stat()
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(unreadable(source.files)) == [2]
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert unreadable(source.files) == {}


def test_images_in_memory_need_no_check(cache: Path) -> None:
    assert unreadable(()) == {}
    assert not cache.exists()


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_the_check_says_what_decoding_says(tmp_path: Path, kind: str) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    options = {"progressive": True} if kind == "progressive" else {}
    path = tmp_path / "image"
    Image.fromarray(drawn).save(path, "JPEG" if options else kind, **options)
    content = path.read_bytes()
    verdicts = set()
    for size in sorted(
        {0, 1, 20, *range(0, len(content), max(1, len(content) // 40)), len(content) - 3, len(content)}
    ):
        path.write_bytes(content[:size])
        try:
            read_image(str(path))
            readable = True
        except UserError:
            readable = False
        assert (why_unreadable(str(path)) is None) is readable, size
        verdicts.add(readable)
    assert verdicts == {True, False}


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB", "F", "I;16", "LA", "P"])
def test_the_check_agrees_on_every_mode(tmp_path: Path, mode: str) -> None:
    image = Image.effect_noise((30, 20), 50)
    if mode == "F":
        image = Image.fromarray(np.ones((4, 4), np.float32))
    elif mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    else:
        image = image.convert(mode)
    path = str(tmp_path / "image")
    image.save(path, {"L": "JPEG", "CMYK": "JPEG", "RGB": "JPEG", "F": "TIFF"}.get(mode, "PNG"))
    reason = why_unreadable(path)
    assert (reason is not None) is (mode == "F")
    if reason:
        assert "floating-point" in reason
