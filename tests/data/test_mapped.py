"""Batches of maps in place of images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neq.data import Data
from neq.data.map_format import MapFormat
from neq.data.map_stores import DiskMaps, MapStore, MemoryMaps
from neq.data.mapped import Maps
from tests.data.test_opening import digits, photos


class Function:
    """Maps that differ by the size of the batch they are computed in, as a convolution's last digits may."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return (images[:, :2, ::2, ::2] * 2 + len(images)).contiguous()


def mapped(data: Data, store: MapStore, parts: int = 1) -> tuple[Data, Function]:
    function = Function()
    size = next(iter(data.eval_batches("test")))[0].shape[-1]
    form = MapFormat.of(torch.zeros(2, 2, -(-size // 2), -(-size // 2)), "exact")
    assert form is not None
    maps = Maps(function, form, store, "digest", torch.device("cpu"), parts)
    return data.mapped(maps, maps), function


def expected(batches: Any, parts: int = 1) -> list[tuple[Tensor, Tensor]]:
    return [
        (torch.cat([Function()(part) for part in images.tensor_split(parts)]), labels)
        for images, labels in batches
    ]


def assert_equal(found: Any, wanted: list[tuple[Tensor, Tensor]]) -> None:
    for (maps, labels), (own, own_labels) in zip(found, wanted, strict=True):
        assert torch.equal(maps, own)
        assert torch.equal(labels, own_labels)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_maps_are_those_of_the_batch_and_computed_once(tmp_path: Path, kind: str, parts: int) -> None:
    data = photos(tmp_path / "images", views=2)
    store = MemoryMaps(10**6) if kind == "memory" else DiskMaps(tmp_path / "maps", 10**6)
    on_maps, function = mapped(data, store, parts)
    for epoch in range(5):
        assert_equal(on_maps.train_batches(epoch), expected(data.train_batches(epoch), parts))
        if epoch == 1:
            first = len(function.sizes)
    # What an incomplete last batch leaves out differs from epoch to epoch.
    assert set(function.sizes) == {8 // parts}
    assert first == 2 * data.steps_per_epoch * parts
    assert len(function.sizes) - first <= 4


@pytest.mark.parametrize("n_worker", [0, 2])
def test_evaluations_have_a_smaller_last_batch(tmp_path: Path, n_worker: int) -> None:
    with photos(tmp_path, test_batch_size=3, n_worker=n_worker) as data:
        on_maps, function = mapped(data, MemoryMaps(10**6))
        for _ in range(2):
            assert_equal(on_maps.eval_batches("test"), expected(data.eval_batches("test")))
        assert function.sizes == [3, 3, 2]


def test_images_whose_maps_are_kept_are_not_read(tmp_path: Path) -> None:
    data = photos(tmp_path, cache="none")
    on_maps, _ = mapped(data, MemoryMaps(10**6))
    wanted = expected(data.eval_batches("test"))
    list(on_maps.eval_batches("test"))
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    assert_equal(on_maps.eval_batches("test"), wanted)


@pytest.mark.parametrize("rows", [0, 5, 15])
def test_maps_beyond_the_limit_are_computed_in_batches_of_the_same_size(tmp_path: Path, rows: int) -> None:
    data = photos(tmp_path, views=1)
    store = MemoryMaps(rows * 2 * 6 * 6 * 4)
    on_maps, function = mapped(data, store)
    for epoch in range(3):
        assert_equal(on_maps.train_batches(epoch), expected(data.train_batches(epoch)))
        assert len(store.known("digest")) <= rows
    assert set(function.sizes) == {8}
    # Missing images of several batches pass through together.
    steps = data.steps_per_epoch
    assert (
        len(function.sizes) == {0: 3 * steps, 5: 3 * steps, 15: steps + 2 * -(-(8 * steps - 15) // 8)}[rows]
    )


def test_a_pass_may_start_late_and_end_early(tmp_path: Path) -> None:
    data = photos(tmp_path, views=2)
    on_maps, function = mapped(data, MemoryMaps(10**6))
    next(iter(on_maps.train_batches(0)))
    assert function.sizes == [8]
    assert_equal(on_maps.train_batches(0, 1), expected(data.train_batches(0, 1)))
    assert_equal(on_maps.train_batches(0), expected(data.train_batches(0)))
    assert len(function.sizes) == data.steps_per_epoch


def test_a_map_that_is_lost_or_damaged_is_computed_again(tmp_path: Path) -> None:
    data = photos(tmp_path / "images", cache="none")
    store = DiskMaps(tmp_path / "maps", 10**6)
    on_maps, function = mapped(data, store)
    wanted = expected(data.eval_batches("test"))
    list(on_maps.eval_batches("test"))
    batches = on_maps.eval_batches("test")
    files = sorted(path for path in (tmp_path / "maps").rglob("*") if path.is_file())
    files[0].write_bytes(b"damaged")
    files[1].unlink()
    del function.sizes[:]
    assert_equal(batches, wanted)
    assert function.sizes == [8, 8]
    assert_equal(on_maps.eval_batches("test"), wanted)
    assert function.sizes == [8, 8]


def test_images_drawn_more_than_once_an_epoch(tmp_path: Path) -> None:
    for limit in (10**6, 500):
        data = photos(tmp_path, fill=not any(tmp_path.iterdir()), views=2, sampling="balanced")
        on_maps, _ = mapped(data, MemoryMaps(limit))
        for epoch in range(3):
            assert_equal(on_maps.train_batches(epoch), expected(data.train_batches(epoch)))


def test_without_augmentation_every_epoch_has_the_same_view() -> None:
    data = digits(image_size=8)
    assert data.views == 1
    on_maps, function = mapped(data, MemoryMaps(10**7))
    for epoch in range(2):
        assert_equal(on_maps.train_batches(epoch), expected(data.train_batches(epoch)))
    assert len(function.sizes) <= data.steps_per_epoch + 1


def test_pixels_name_all_that_images_depend_on(tmp_path: Path) -> None:
    def opened(seed: int = 0, **settings: Any) -> Data:
        return photos(tmp_path, seed, fill=not any(tmp_path.iterdir()), **settings)

    first = opened()
    trained, evaluated = first.pixels(train=True), first.pixels(train=False)
    assert trained != evaluated
    same = opened(cache="disk", base_batch_size=4, views=3, validation_percentage=0.4)
    assert (same.pixels(train=True), same.pixels(train=False)) == (trained, evaluated)
    for change in ({"seed": 1}, {"resize_scale": 0.5}, {"color_aug": 0.1}):
        other = opened(**change)
        assert other.pixels(train=True) != trained
        assert other.pixels(train=False) == evaluated
    for more in ({"image_size": 10}, {"mean_std": [[0, 0, 0], [2, 2, 2]]}, {"corruption": "fog:1"}):
        other = opened(**more)
        assert other.pixels(train=True) != trained
        assert other.pixels(train=False) != evaluated
    file = next(tmp_path.rglob("*.png"))
    file.write_bytes(file.read_bytes() + b" ")
    assert opened().pixels(train=False) != evaluated
