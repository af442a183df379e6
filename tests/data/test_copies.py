import shutil
from pathlib import Path

import numpy as np
import pytest

from neq.data.copies import copies_note
from neq.data.image_folder import open_image_folder
from neq.data.sources import Source
from tests.data.miniatures import jpeg


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of four different images in train and test."""
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    for number, (split, name) in enumerate((s, n) for s in ("train", "test") for n in ("ash", "oak")):
        (tmp_path / "p" / split / name).mkdir(parents=True)
        for index in range(4):
            (tmp_path / "p" / split / name / f"{index}.jpg").write_bytes(jpeg(10 * number + index))
    return tmp_path / "p"


def note(root: Path) -> str | None:
    source = open_image_folder(str(root))
    return copies_note(source, {str(name): part for name, part in source.official.items()})


def test_a_test_image_that_is_trained_is_named(root: Path) -> None:
    assert note(root) is None
    shutil.copy(root / "train" / "ash" / "1.jpg", root / "train" / "ash" / "twice.jpg")
    assert note(root) is None
    shutil.copy(root / "train" / "ash" / "1.jpg", root / "test" / "oak" / "other.jpg")
    line = note(root)
    assert line is not None
    assert "1 of 9 test images are training images too" in line
    assert line.endswith(f"{root}/test/oak/other.jpg is the same file as {root}/train/ash/1.jpg")
    (root / "test" / "ash" / "3.jpg").unlink()
    (root / "test" / "ash" / "3.jpg").symlink_to(root / "train" / "oak" / "3.jpg")
    line = note(root)
    assert line is not None
    assert "2 of 9 test images" in line


def test_files_of_one_size_and_one_end_differ_by_their_content(root: Path) -> None:
    end = bytes(5000)
    (root / "train" / "ash" / "1.jpg").write_bytes(b"a" + end)
    (root / "test" / "ash" / "1.jpg").write_bytes(b"b" + end)
    assert note(root) is None
    (root / "test" / "ash" / "1.jpg").write_bytes(b"a" + end)
    assert note(root) is not None


def test_images_in_memory_are_not_compared() -> None:
    source = Source(("a", "b"), np.zeros(4, int), lambda index: pytest.fail("read"))
    assert copies_note(source, {"train": np.arange(2), "test": np.arange(2, 4)}) is None
