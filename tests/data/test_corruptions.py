"""Corruptions of images."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from neq.config import DatasetEntry
from neq.config.schema import DataProvider, MeanStd
from neq.data import open_data, open_source
from neq.data.corruptions import CORRUPTIONS, corrupt, corrupted
from neq.data.sources import source_of_arrays
from neq.utils.errors import UserError

PLAIN = DatasetEntry(opener="", augmentation="square", mean_std=MeanStd(mean=(0, 0, 0), std=(1, 1, 1)))
ASSETS = os.environ.get("NEQ_TEST_ASSETS")


def photo(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    """A smooth colour image with some noise, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 9)], -1)
    return (128 + 70 * waves + random.normal(0, 8, (height, width, 3))).astype(np.uint8)


def photos(count: int = 6):
    return source_of_arrays(
        ("a", "b"), {"train": (np.stack([photo(seed=i) for i in range(count)]), np.arange(count) % 2)}
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(32, 32), (20, 37), (8, 8), (1, 1)])
def test_a_corrupted_image_has_its_size_and_is_the_same_every_time(name: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    for severity in (1, 5):
        changed = corrupt(image, name, severity, 3)
        assert (changed.dtype, changed.shape) == (np.uint8, image.shape)
        assert np.array_equal(changed, corrupt(image, name, severity, 3))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity(name: str) -> None:
    image = photo()
    changes = [np.abs(corrupt(image, name, severity, 0) / 1.0 - image).mean() for severity in (1, 3, 5)]
    assert changes[0] > 0.5
    if name != "saturate":  # less of it at severities 1 and 2, more from 3 on
        assert changes == sorted(changes)


@pytest.mark.skipif(not ASSETS, reason="needs photographs: NEQ_TEST_ASSETS is not set")
def test_noise_of_photographs_is_as_strong_as_published() -> None:
    images = np.load(Path(str(ASSETS)) / "data" / "cifar10" / "cifar10_subset.npz")["x_test"][:300]
    for severity, expected in ((1, 8.0), (3, 15.8), (5, 19.5)):
        noisy = [corrupt(image, "gaussian_noise", severity, i) for i, image in enumerate(images)]
        assert np.abs(np.stack(noisy) / 1.0 - images).mean() == pytest.approx(expected, abs=0.3)


def test_values_by_hand() -> None:
    pixel = np.array([[[200, 100, 50]]], np.uint8)
    two = np.array([[[0, 0, 0], [200, 100, 0]]], np.uint8)
    # V = 200 + .1 * 255 = 225.5; the others keep their ratio to it.
    assert corrupt(pixel, "brightness", 2, 0).tolist() == [[[225, 112, 56]]]
    assert corrupt(pixel * 0, "brightness", 2, 0).tolist() == [[[25, 25, 25]]]
    # mean + (x - mean) / 2
    assert corrupt(two, "contrast", 2, 0).tolist() == [[[50, 25, 0], [150, 75, 0]]]
    # S .75 -> .225 and .075: V (1 - S (V - x) / (V - min))
    assert corrupt(pixel, "saturate", 1, 0).tolist() == [[[200, 170, 155]]]
    assert corrupt(pixel, "saturate", 2, 0).tolist() == [[[200, 190, 185]]]
    grey = np.full((1, 1, 3), 100, np.uint8)
    assert corrupt(grey, "saturate", 4, 0).tolist() == [[[100, 90, 90]]]  # grey is a red without saturation
    # (200 + 0) / 2 spread over both pixels
    wide = np.array([[[0] * 3, [200] * 3]], np.uint8).repeat(2, 0)
    assert (corrupt(wide, "pixelate", 5, 0) == 100).all()


def test_what_is_even_stays_even_under_blur() -> None:
    even = np.full((16, 16, 3), 77, np.uint8)
    for name in ("gaussian_blur", "defocus_blur", "zoom_blur"):
        assert np.abs(corrupt(even, name, 5, 0).astype(int) - 77).max() <= 1


def test_impulses_are_black_or_white_in_equal_shares() -> None:
    grey = np.full((200, 200, 3), 77, np.uint8)
    noisy = corrupt(grey, "impulse_noise", 5, 0)
    assert set(np.unique(noisy)) == {0, 77, 255}
    assert (noisy == 0).mean() == pytest.approx(0.035, abs=0.004)
    assert (noisy == 255).mean() == pytest.approx(0.035, abs=0.004)


def test_every_image_has_noise_of_its_own_that_no_other_image_changes() -> None:
    source = corrupted(photos(), "gaussian_noise:3")
    again, even = corrupted(photos(), "gaussian_noise:3"), [4, 2, 0]
    assert [bool(torch.equal(source.image(i), again.image(i))) for i in even] == [True] * 3
    noises = [source.image(i).int() - photos().image(i).int() for i in range(2)]
    assert not torch.equal(*noises)
    other = corrupted(photos(), "gaussian_noise:4").image(0)
    assert not torch.equal(other, source.image(0))


def test_an_unknown_corruption() -> None:
    with pytest.raises(UserError, match=r"corruption 'fogg' is unknown; did you mean 'fog'\?"):
        open_source("digits", None, "fogg:3")


@pytest.mark.parametrize("given", ["fog", "fog:0", "fog:6", "fog:3:1", ":3", "Fog:1"])
def test_a_corruption_without_a_severity_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="a severity from 1 to 5"):
        DataProvider(corruption=given)


def test_batches_are_corrupted_alike_whatever_loads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loader processes, caches and other processes of the run; a disk cache keeps corruptions apart."""
    from PIL import Image

    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    for number in range(24):
        folder = tmp_path / "photos" / ("a", "b")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(seed=number)).save(folder / f"{number}.png")
    common = {
        "dataset": "image_folder",
        "root": str(tmp_path / "photos"),
        "image_size": 32,
        "base_batch_size": 4,
        "velocity_images": 2,
        "validation_percentage": 0.3,
    }
    opened = partial(open_data, entry=PLAIN, seed=0)

    def batches(corruption: str | None, rank: int = 0, processes: int = 1, **more) -> list[torch.Tensor]:
        settings = DataProvider(corruption=corruption, **common, **more)
        with opened(settings, rank=rank, processes=processes) as data:
            found = [*data.train_batches(1), *data.eval_batches("test")]
            return [images for images, _ in found] + [data.velocity_images()]

    plain = batches(None, cache="none")
    expected = batches("gaussian_noise:5", cache="none")
    assert all((a != b).any() for a, b in zip(plain, expected, strict=True))
    for more in ({"cache": "memory"}, {"cache": "disk"}, {"cache": "none", "n_worker": 2}):
        again = batches("gaussian_noise:5", **more)
        assert all(map(torch.equal, expected, again))
    assert all(map(torch.equal, plain, batches(None, cache="disk")))  # after the other was cached
    shares = [batches("gaussian_noise:5", rank, 2) for rank in range(2)]
    assert torch.equal(shares[0][0], expected[0][::2])
    assert torch.equal(shares[1][0], expected[0][1::2])
