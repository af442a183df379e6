import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neq.data.npz import open_npz
from neq.utils.errors import UserError

GREY = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], axis=3)
LABELS = np.array([3, 1, 3, 1, 7, 7])


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "a.npz", **arrays)
    return str(folder / "a.npz")


def refusal(path: str) -> str:
    with pytest.raises(UserError) as caught:
        open_npz(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert path in message
    return message


@pytest.mark.parametrize("pixels", [GREY, GREY[..., None], COLOUR], ids=["grey", "one channel", "colour"])
def test_images_and_labels_without_splits(tmp_path: Path, pixels: np.ndarray) -> None:
    source = open_npz(saved(tmp_path, x=pixels, y=LABELS))
    assert source.official == {}
    assert source.classes == ("1", "3", "7")
    assert source.labels.tolist() == [1, 0, 1, 0, 2, 2]
    assert source.labels.dtype == np.int64
    image = source.image(2)
    assert image.shape == (3, 4, 5)
    assert (image[0].numpy() == GREY[2]).all()
    assert (image[2].numpy() == GREY[2] + 2 * (pixels is COLOUR)).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_published_splits(tmp_path: Path, kind: type) -> None:
    y: np.ndarray = LABELS.astype(kind)
    arrays = {"x_train": COLOUR[:3], "y_train": y[:3], "x_test": COLOUR[4:], "y_test": y[4:]}
    source = open_npz(saved(tmp_path, **arrays, unused=np.array(["any", "thing"])))
    assert {name: part.tolist() for name, part in source.official.items()} == {
        "train": [0, 1, 2],
        "test": [3, 4],
    }
    assert source.classes == ("1", "3", "7")
    assert source.labels.tolist() == [1, 0, 1, 2, 2]
    assert (source.image(3).numpy() == COLOUR[4].transpose(2, 0, 1)).all()
    more = open_npz(saved(tmp_path, **arrays, x_val=COLOUR[3:4], y_val=y[3:4]))
    assert {name: len(part) for name, part in more.official.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


def test_class_names(tmp_path: Path) -> None:
    names = np.array(["a", "b", "c"])
    source = open_npz(saved(tmp_path, x=GREY, y=LABELS % 3, classes=names))
    assert source.classes == ("a", "b", "c")
    assert source.labels.tolist() == [0, 1, 0, 1, 1, 1]
    assert "label 3, but names 3 classes" in refusal(saved(tmp_path, x=GREY, y=LABELS, classes=names))
    assert "give a list of names" in refusal(saved(tmp_path, x=GREY, y=LABELS % 3, classes=np.arange(3)))


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    first = open_npz(saved(tmp_path, x=GREY, y=LABELS)).fingerprint
    np.savez_compressed(tmp_path / "b.npz", y=LABELS.astype(np.uint8), x=GREY, more=GREY)
    assert open_npz(str(tmp_path / "b.npz")).fingerprint == first
    other = GREY.copy()
    other[0, 0, 0] = 9
    assert open_npz(saved(tmp_path, x=other, y=LABELS)).fingerprint != first
    assert open_npz(saved(tmp_path, x=GREY, y=LABELS[::-1])).fingerprint != first


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": GREY}, "has the arrays none; allowed: x and y, or x_train"),
        ({"x": GREY}, "has the arrays x; allowed"),
        ({"x_train": GREY, "y_train": LABELS}, "has the arrays x_train, y_train; allowed"),
        ({"x": GREY.astype(np.float32), "y": LABELS}, r"x is float32 [6, 4, 5]; uint8"),
        ({"x": np.zeros((6, 4, 5, 4), np.uint8), "y": LABELS}, "1 or 3] is allowed"),
        ({"x": GREY[0], "y": LABELS}, "x is uint8 [4, 5]"),
        ({"x": GREY[:0], "y": LABELS[:0]}, "x is uint8 [0, 4, 5]"),
        ({"x": GREY, "y": LABELS[:5]}, "y is int64 [5]; whole numbers [6]"),
        ({"x": GREY, "y": LABELS / 2}, "y is float64 [6]"),
        ({"x": GREY, "y": np.eye(6, dtype=int)}, "y is int64 [6, 6]"),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": COLOUR, "y_test": LABELS},
            "images of several shapes",
        ),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    assert said in refusal(saved(tmp_path, **arrays))


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pickle-ran"),)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.array([Malicious()], dtype=object)
    assert "allow_pickle" in refusal(saved(tmp_path, x=objects, y=LABELS))
    np.save(tmp_path / "b.npy", objects, allow_pickle=True)
    refusal(str(tmp_path / "b.npy"))
    assert not (tmp_path / "pickle-ran").exists()


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    assert "No such file" in refusal(str(tmp_path / "gone.npz"))
    assert "directory" in refusal(str(tmp_path))
    (tmp_path / "text.npz").write_text("x,y")
    refusal(str(tmp_path / "text.npz"))
    np.save(tmp_path / "one.npy", GREY)
    assert "holds one array" in refusal(str(tmp_path / "one.npy"))
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
        archive.writestr("y.npy", b"")
    refusal(str(tmp_path / "zip.npz"))
    with pytest.raises(UserError, match="npz:FILE"):
        open_npz(None)


def test_a_truncated_or_altered_archive(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).integers(0, 256, (6, 30, 30), np.uint8), y=LABELS)
    content, path = buffer.getvalue(), tmp_path / "a.npz"
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        refusal(str(path))
    middle = len(content) // 3
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    refusal(str(path))
