import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from neq.config.schema import DataProvider, MeanStd
from neq.data import Data, open_data
from neq.errors import UserError

PLAIN = MeanStd(mean=(0, 0, 0), std=(1, 1, 1))
DIGITS = SimpleNamespace(classes=10, augmentation="none", mean_std=PLAIN)
PHOTOS = SimpleNamespace(classes=None, augmentation="photo", mean_std=PLAIN)


def digits(seed: int = 0, **settings: Any) -> Data:
    return open_data(DataProvider(**{"image_size": 8, **settings}), DIGITS, seed)


def photos(root: Path, seed: int = 0, **settings: Any) -> Data:
    """Two classes of 20 noise images each, velocity 2."""
    for name, grey in (("dark", 0), ("light", 128)):
        (root / name).mkdir(exist_ok=True)
        for number in range(20):
            image = Image.effect_noise((16, 20), 64).point(lambda value, grey=grey: value // 2 + grey)
            image.save(root / name / f"{number}.png")
    chosen = {"dataset": "image_folder", "root": str(root), "image_size": 12, "velocity_images": 2}
    return open_data(DataProvider(**{**chosen, "base_batch_size": 8, **settings}), PHOTOS, seed)


def test_digits() -> None:
    data = digits()
    assert data.classes == tuple("0123456789")
    assert data.counts == {"train": 1149, "validation": 278, "velocity": 10, "test": 360}
    assert data.fingerprint is None
    assert data.notes == ()
    assert data.steps_per_epoch == 35
    batches = list(data.train_batches(0))
    assert len(batches) == 35
    assert all(images.shape == (32, 3, 8, 8) for images, _ in batches)
    assert data.velocity_images().shape == (10, 3, 8, 8)


def test_evaluation_sees_every_image_once() -> None:
    data = digits()
    for name in ("validation", "test"):
        batches = list(data.eval_batches(name))
        assert sum(len(labels) for _, labels in batches) == data.counts[name]
        assert 0 < len(batches[-1][1]) < 32
        assert len(torch.unique(torch.cat([images for images, _ in batches]), dim=0)) == data.counts[name]


def test_the_sample_batch_is_the_first_of_epoch_0(tmp_path: Path) -> None:
    data = photos(tmp_path)
    under_way = data.train_batches(1)
    next(under_way)
    images, labels = data.sample_batch()
    next(under_way)
    first_images, first_labels = next(data.train_batches(0))
    assert torch.equal(images, first_images)
    assert torch.equal(labels, first_labels)


def test_image_folder_batches_are_the_same_for_every_number_of_workers(tmp_path: Path) -> None:
    alone = photos(tmp_path)
    batches = {0: [*alone.train_batches(3), *alone.eval_batches("test")]}
    with open_data(
        DataProvider(
            dataset="image_folder",
            root=str(tmp_path),
            image_size=12,
            velocity_images=2,
            base_batch_size=8,
            n_worker=2,
        ),
        PHOTOS,
        0,
    ) as shared:
        batches[2] = [*shared.train_batches(3), *shared.eval_batches("test")]
        assert len(multiprocessing.active_children()) == 2
        assert torch.equal(alone.velocity_images(), shared.velocity_images())
        assert alone.fingerprint == shared.fingerprint is not None
    assert multiprocessing.active_children() == []
    assert len(batches[0]) == len(batches[2])
    for (images, labels), (other_images, other_labels) in zip(batches[0], batches[2], strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_the_settings_normalization_goes_before_the_entrys() -> None:
    plain, scaled = digits(), digits(mean_std={"mean": [0, 0, 0], "std": [0.5, 0.5, 0.5]})
    assert torch.equal(plain.velocity_images() * 2, scaled.velocity_images())


def test_a_small_training_split_is_one_batch() -> None:
    data = digits(base_batch_size=5000)
    assert data.steps_per_epoch == 1
    assert [len(labels) for _, labels in data.train_batches(0)] == [1149]


def test_a_training_batch_of_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"base_batch_size 1, 1149 training images.*raise base_batch_size"):
        digits(base_batch_size=1)


def test_the_class_count_must_be_the_wanted_one() -> None:
    assert len(digits(new_num_classes=10).classes) == 10
    with pytest.raises(UserError, match="new_num_classes is 100, but digits has 10 classes"):
        digits(new_num_classes=100)


def test_an_unknown_data_set() -> None:
    with pytest.raises(UserError, match=r"dataset 'digit' is unknown; did you mean 'digits'\?"):
        digits(dataset="digit")


def test_a_split_that_was_not_made() -> None:
    with pytest.raises(AssertionError, match="no validation split"):
        digits(use_validation=False).eval_batches("validation")
