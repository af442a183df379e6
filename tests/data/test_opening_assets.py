"""Real photos and digits, where a folder of them is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neq.config import dataset
from neq.config.schema import DataProvider
from neq.data import Data, open_data

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "")) / "data"
pytestmark = pytest.mark.skipif(
    "NEQ_TEST_ASSETS" not in os.environ or not ASSETS.is_dir(),
    reason="NEQ_TEST_ASSETS names no folder with data/ in it",
)

# Data set, its folder or file, classes, images in all.
SETS = [
    ("image_folder", "flowers12", 12, 960),
    ("image_folder", "caltech101", 24, 1320),
    ("flowers", "flowers12", 12, 960),
    ("vww", "vww_mini", 2, 256),
    ("npz", "cifar10/cifar10_subset.npz", 10, 12000),
    ("npz", "digits/mnist_subset.npz", 10, 15000),
    ("npz", "digits/usps.npz", 10, 7200),
    ("npz", "digits/optdigits.npz", 10, 1400),
]


def opened(name: str, place: str, **settings: object) -> Data:
    given = {"dataset": name, "root": str(ASSETS / place), "image_size": 32, "cache": "none", **settings}
    return open_data(DataProvider(**given), dataset(name), 0)


@pytest.mark.parametrize(("name", "place", "classes", "images"), SETS)
def test_it_opens_and_divides(name: str, place: str, classes: int, images: int) -> None:
    data = opened(name, place)
    assert len(data.classes) == classes
    assert sum(data.counts.values()) == images
    assert data.skipped == ()
    parts = data._parts
    assert len(np.unique(np.concatenate(list(parts.values())))) == images
    pictures, labels = next(data.train_batches(0))
    assert pictures.shape == (32, 3, 32, 32)
    assert pictures.std() > 0.3
    assert 0 <= labels.min() <= labels.max() < classes
    assert len(torch.cat([labels for _, labels in data.eval_batches("test")])) == data.counts["test"]


@pytest.mark.parametrize("name", ["image_folder", "flowers"])
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_real_photos_are_the_same_cached_and_with_workers(
    name: str, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path))
    plain = opened(name, "flowers12")
    with opened(name, "flowers12", cache=cache, n_worker=2) as cached:
        for _ in range(2):
            for split in ("train", "validation"):
                pairs = (
                    data.train_batches(1) if split == "train" else data.eval_batches("validation")
                    for data in (plain, cached)
                )
                for (images, _), (others, _) in zip(*pairs, strict=True):
                    assert torch.equal(images, others)
