"""What the loaders make of torchvision's files; tests/data/published/test_by_name.py has their downloads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neq.data import open_source
from neq.utils.errors import UserError
from tests.data.miniatures import CLASSES, TEST, TRAIN, offer

SIZES = {"c10": 32, "c100": 32, "svhn": 32, "mnist": 28, "usps": 16}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_images_labels_and_splits(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path, "http://127.0.0.1:9", monkeypatch)
    source = open_source(name, str(tmp_path))
    classes = CLASSES[name]
    assert source.labels.dtype == np.int64
    assert source.official["train"].tolist() == list(range(TRAIN * classes))
    assert source.official["test"].tolist() == list(range(TRAIN * classes, (TRAIN + TEST) * classes))
    assert source.labels.tolist() == [*range(classes)] * (TRAIN + TEST)
    assert source.files == ()
    for index, label in enumerate(source.labels):
        image = source.image(index)
        assert image.shape == (3, size, size)
        assert image.dtype == torch.uint8
        assert image[0, 0, 0] == label  # so the miniatures are drawn
    if name in ("svhn", "mnist", "usps"):
        assert source.classes == tuple("0123456789")


@pytest.mark.parametrize("name", ["c10", "c100"])
def test_a_pickle_that_is_not_the_published_one_is_not_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path, "http://127.0.0.1:9", monkeypatch)
    open_source(name, str(tmp_path))
    victim = max((tmp_path / f"cifar-{name[1:]}-{'batches-py' if name == 'c10' else 'python'}").iterdir())
    victim.write_bytes(victim.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"is incomplete or damaged .*remove cifar-10"):
        open_source(name, str(tmp_path))
