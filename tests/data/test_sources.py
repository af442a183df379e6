import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neq.data.sources import Source, source_of_arrays, source_of_files, without


def arrays() -> Source:
    """Ten images of one grey each, their number, divided 6 : 4."""
    pixels = np.arange(10, dtype=np.uint8)[:, None, None].repeat(2, axis=1).repeat(3, axis=2)
    labels = np.arange(10) % 2
    return source_of_arrays("ab", {"train": (pixels[:6], labels[:6]), "test": (pixels[6:], labels[6:])}, "f")


def test_arrays() -> None:
    source = pickle.loads(pickle.dumps(arrays()))
    assert source.classes == ("a", "b")
    assert [int(source.image(index)[2, 1, 2]) for index in range(10)] == list(range(10))
    assert source.official["test"].tolist() == [6, 7, 8, 9]
    assert source.files == ()


def test_files(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, file in enumerate(files):
        Image.new("RGB", (4, 2), (number, 0, 9)).save(file)
    listed = [(file, label) for label, file in enumerate(files)]
    source = pickle.loads(pickle.dumps(source_of_files("abc", {"train": listed[:2], "test": listed[2:]})))
    assert torch.equal(source.image(2)[:, 1, 3], torch.tensor([2, 0, 9], dtype=torch.uint8))
    assert source.labels.tolist() == [0, 1, 2]
    assert source.fingerprint is None
    assert source.files == tuple(files)
    assert source_of_files("abc", {"train": listed}, tmp_path).fingerprint is not None


def test_without_some_images_the_rest_keep_their_splits_and_labels() -> None:
    source = arrays()
    rest = without(source, [0, 5, 7])
    assert [int(rest.image(index)[0, 0, 0]) for index in range(7)] == [1, 2, 3, 4, 6, 8, 9]
    assert rest.labels.tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert {name: part.tolist() for name, part in rest.official.items()} == {
        "train": [0, 1, 2, 3],
        "test": [4, 5, 6],
    }
    assert pickle.loads(pickle.dumps(rest)).image(0)[0, 0, 0] == 1


def test_the_fingerprint_says_what_was_left_out(tmp_path: Path) -> None:
    source = arrays()
    prints = {source.fingerprint, *(without(source, out).fingerprint for out in ([0], [1], [0, 1]))}
    assert len(prints) == 4
    assert without(source, [1, 0]).fingerprint in prints


@pytest.mark.parametrize("has_own", [True, False])
def test_the_fingerprint_without_images_moves_with_the_folder(tmp_path: Path, has_own: bool) -> None:
    prints = set()
    for name in ("here", "there"):
        folder = tmp_path / name
        for split in ("train", "test"):
            (folder / split).mkdir(parents=True)
            for number in range(3):
                (folder / split / f"{number}.png").write_bytes(b"x")
        listed = {
            split: [(str(folder / split / f"{number}.png"), 0) for number in range(3)]
            for split in ("train", "test")
        }
        source = source_of_files("a", listed, folder if has_own else None)  # type: ignore[arg-type]
        prints.add(without(source, [2]).fingerprint)
    assert len(prints) == 1
