import multiprocessing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from neq.config import DatasetEntry
from neq.config.schema import DataProvider, MeanStd
from neq.data import Data, open_data
from neq.utils.errors import UserError

PLAIN = MeanStd(mean=(0, 0, 0), std=(1, 1, 1))
DIGITS = DatasetEntry(opener="", classes=10, augmentation="none", mean_std=PLAIN)
PHOTOS = DatasetEntry(opener="", augmentation="photo", mean_std=PLAIN)


def digits(seed: int = 0, **settings: Any) -> Data:
    return open_data(DataProvider(**{"image_size": 8, **settings}), DIGITS, seed)


def photos(root: Path, seed: int = 0, fill: bool = True, **settings: Any) -> Data:
    """Two classes of 20 noise images each, velocity 2; without `fill` those that are there already."""
    for name, grey in (("dark", 0), ("light", 128)) if fill else ():
        (root / name).mkdir(exist_ok=True, parents=True)
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


def test_whole_batches_are_of_all_classes_and_the_same_for_every_seed_and_number_of_processes(
    tmp_path: Path,
) -> None:
    data = photos(tmp_path, on_bad_image="error")
    batches = list(data.whole_batches("test", 5))
    assert [len(labels) for _, labels in batches] == [4, 4]
    assert all(set(labels.tolist()) == {0, 1} for _, labels in batches)
    seen = torch.cat([images for images, _ in batches])
    assert len(torch.unique(seen, dim=0)) == data.counts["test"] == 8
    settings = {"dataset": "image_folder", "root": str(tmp_path), "image_size": 12, "velocity_images": 2}
    provider = DataProvider(**settings, base_batch_size=8)
    ranks = [open_data(provider, PHOTOS, 7, rank=rank, processes=3) for rank in range(3)]
    shared = [list(each.whole_batches("test", 5)) for each in ranks]
    assert [len(each) for each in shared] == [1, 1, 0]
    for (images, labels), of_rank in zip(batches, shared, strict=False):
        assert torch.equal(images, of_rank[0][0])
        assert torch.equal(labels, of_rank[0][1])


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


def test_fixed_views_are_those_of_the_first_epochs(tmp_path: Path) -> None:
    def seen(epoch: int, **settings: Any) -> list[bytes]:
        data = photos(tmp_path, fill=not any(tmp_path.iterdir()), base_batch_size=100, **settings)
        ((images, _),) = data.train_batches(epoch)
        return sorted(image.numpy().tobytes() for image in images)

    first = [seen(epoch) for epoch in range(2)]
    assert [seen(epoch, views=2) for epoch in range(4)] == first * 2
    assert seen(2) not in first


def test_a_small_training_split_is_one_batch() -> None:
    data = digits(base_batch_size=5000)
    assert data.steps_per_epoch == 1
    assert [len(labels) for _, labels in data.train_batches(0)] == [1149]


def test_an_evaluation_has_batches_of_its_own() -> None:
    plain, small = digits(), digits(test_batch_size=5)
    assert [len(labels) for _, labels in small.eval_batches("test")] == [5] * 72
    assert torch.equal(*(torch.cat([x for x, _ in data.eval_batches("test")]) for data in (plain, small)))
    assert [len(labels) for _, labels in small.train_batches(0)] == [32] * small.steps_per_epoch
    assert [len(labels) for _, labels in plain.evaluated_by(5).eval_batches("test")] == [5] * 72
    assert len(next(plain.eval_batches("test"))[1]) == 32


def test_a_training_batch_of_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"base_batch_size 1, 1149 training images.*raise base_batch_size"):
        digits(base_batch_size=1)


def test_a_class_count_of_another_data_set_is_ignored() -> None:
    assert digits(new_num_classes=10).notes == ()
    data = digits(new_num_classes=100)
    assert (len(data.classes), data.notes) == (10, ("ignoring new_num_classes=100: digits has 10 classes",))


def test_an_unknown_data_set() -> None:
    with pytest.raises(UserError, match=r"dataset 'digit' is unknown; did you mean 'digits'\?"):
        digits(dataset="digit")


def test_a_split_that_was_not_made() -> None:
    with pytest.raises(AssertionError, match="no validation split"):
        digits(use_validation=False).eval_batches("validation")


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("n_worker", [0, 2])
@pytest.mark.parametrize("augmentation", ["photo", "none"])
def test_the_cache_changes_no_batch(
    cache: str, n_worker: int, augmentation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    kind: dict[str, Any] = {"augmentation": augmentation}
    plain = photos(tmp_path / "p", cache="none", **kind)
    expected = [*plain.train_batches(1), *plain.eval_batches("validation"), *plain.eval_batches("test")]
    with photos(tmp_path / "p", cache=cache, n_worker=n_worker, fill=False, **kind) as data:
        for _ in range(2):
            found = [*data.train_batches(1), *data.eval_batches("validation"), *data.eval_batches("test")]
            for (images, labels), (others, other_labels) in zip(expected, found, strict=True):
                assert torch.equal(images, others)
                assert torch.equal(labels, other_labels)
            assert torch.equal(data.velocity_images(), plain.velocity_images())
    assert any((tmp_path / "cache").glob("decoded/*/*/*")) is (cache == "disk")


def test_a_batch_does_not_share_memory_with_the_cache() -> None:
    data = digits(cache="memory")
    first = next(data.eval_batches("test"))[0].clone()
    next(data.eval_batches("test"))[0].zero_()
    assert torch.equal(next(data.eval_batches("test"))[0], first)


def test_a_broken_image_is_found_before_anything_starts(tmp_path: Path) -> None:
    photos(tmp_path)
    (tmp_path / "dark" / "3.png").write_bytes(b"broken")
    with pytest.raises(
        UserError, match=r"3\.png' cannot be read \(no known image format\); replace or remove"
    ):
        photos(tmp_path, fill=False)


def test_a_broken_image_is_left_out_of_every_epoch(tmp_path: Path) -> None:
    whole = photos(tmp_path)
    assert whole.skipped == ()
    (tmp_path / "dark" / "3.png").write_bytes(b"broken")
    first, again = (photos(tmp_path, fill=False, on_bad_image="skip") for _ in range(2))
    assert [Path(file).name for file in first.skipped] == ["3.png"]
    assert "1 of 40 images cannot be read and are left out" in first.notes[0]
    assert sum(first.counts.values()) == 39
    assert first.fingerprint == again.fingerprint != whole.fingerprint
    for one, other in zip(first.train_batches(2), again.train_batches(2), strict=True):
        assert torch.equal(one[0], other[0])
    with photos(tmp_path, fill=False, on_bad_image="skip", n_worker=2) as shared:
        for one, other in zip(first.train_batches(2), shared.train_batches(2), strict=True):
            assert torch.equal(one[0], other[0])


def test_an_image_that_breaks_in_mid_run_is_named(tmp_path: Path) -> None:
    data = photos(tmp_path, cache="none")
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"\.png' cannot be read"):
        next(data.train_batches(0))


def test_the_settings_augmentation_goes_before_the_entrys(tmp_path: Path) -> None:
    def rows(data: Data, epoch: int) -> set[tuple[float, ...]]:
        images = torch.cat([images for images, _ in data.train_batches(epoch)])
        return {tuple(image.flatten().tolist()) for image in images}

    augmented, plain = (
        photos(tmp_path, base_batch_size=28),
        photos(tmp_path, base_batch_size=28, augmentation="none", fill=False),
    )
    assert rows(plain, 0) == rows(plain, 1)
    assert not rows(augmented, 0) & rows(augmented, 1)


def test_a_numpy_archive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 9, 9, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(60) % 3)
    settings = {"dataset": "npz", "root": str(tmp_path / "a.npz"), "image_size": 12, "velocity_images": 2}
    data = open_data(DataProvider(**settings), PHOTOS, 0)
    assert data.classes == ("0", "1", "2")
    assert data.counts == {"train": 38, "validation": 8, "velocity": 2, "test": 12}
    assert next(data.train_batches(0))[0].shape == (32, 3, 12, 12)
    noted = open_data(DataProvider(**settings, new_num_classes=10), PHOTOS, 0).notes
    assert noted[-1] == "ignoring new_num_classes=10: npz has 3 classes"


def test_24_photos_train_at_the_defaults_and_notes_name_what_was_adapted(tmp_path: Path) -> None:
    root = tmp_path / "p"
    photos(root)
    for path in [*root.glob("*/1?.png"), *root.glob("*/9.png"), *root.glob("*/8.png")][:16]:
        path.unlink()
    for path in root.glob("light/*.png"):
        path.write_bytes((root / "dark" / "0.png").read_bytes())
    data = photos(root, fill=False, velocity_images=10, base_batch_size=32)
    assert data.counts == {"train": 15, "validation": 2, "velocity": 2, "test": 5}
    assert len(list(data.train_batches(0))) == 1
    assert data.velocity_images().shape == (2, 3, 12, 12)
    small, copies = data.notes
    assert "velocities are measured on 2 images" in small
    assert "test images are training images too" in copies


def test_balanced_batches_hold_the_classes_equally_often_and_their_whole_labels(tmp_path: Path) -> None:
    photos(tmp_path)
    for number in range(4, 20):
        (tmp_path / "dark" / f"{number}.png").unlink()
    with photos(tmp_path, fill=False, sampling="balanced", velocity_images=1) as data:
        images = data.train_images_by_class()
        assert (len(images), int(images.sum())) == (2, data.counts["train"])
        assert images[0] < images[1] / 3
        epochs = [[labels for _, labels in data.train_batches(epoch)] for epoch in range(20)]
        share = torch.cat([torch.cat(labels) for labels in epochs]).double().mean()
        assert abs(float(share) - 0.5) < 0.15
        assert torch.equal(torch.stack(epochs[3]), data.whole_train_labels(3))
        # The few dark images come again, each time otherwise.
        drawn = [image for batch, labels in data.train_batches(0) for image in batch[labels == 0]]
        assert len(drawn) > images[0]
        assert len(torch.stack(drawn).unique(dim=0)) == len(drawn)


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_processes_share_the_labels_of_whole_batches(sampling: Literal["shuffle", "balanced"]) -> None:
    settings = DataProvider(image_size=8, base_batch_size=31, sampling=sampling)
    for rank in range(2):
        data = open_data(settings, DIGITS, 0, rank=rank, processes=2)
        whole = data.whole_train_labels(1)
        assert whole.shape == (data.steps_per_epoch, 31)
        for (_, labels), every in zip(data.train_batches(1), whole, strict=True):
            assert torch.equal(labels, every[data.own])


def test_unlabelled_batches_hold_the_images_of_all_splits_and_their_numbers() -> None:
    data = digits(base_batch_size=100)
    images, numbers = (torch.cat(part) for part in zip(*data.unlabelled_batches(None), strict=True))
    assert sorted(numbers.tolist()) == list(range(1797))
    assert numbers.tolist() != sorted(numbers.tolist())  # a batch in order may hold one class alone
    labelled = torch.cat([batch[0] for batch in data.eval_batches("test")])
    in_order = images[numbers.argsort()]
    assert torch.equal(in_order[torch.from_numpy(data._parts["test"])], labelled)
    sizes = [len(part) for part, _ in data.unlabelled_batches(None)]
    assert max(sizes) - min(sizes) <= 1
    whole = list(data.unlabelled_batches(3))
    assert [len(part) for part, _ in whole] == [100] * 17
    assert len(torch.cat([found for _, found in whole]).unique()) == 1700
    (rest, own), *_ = data.unlabelled_batches(3, first=16)
    assert torch.equal(rest, whole[16][0])
    assert torch.equal(own, whole[16][1])


def test_processes_share_unlabelled_batches() -> None:
    settings = DataProvider(image_size=8, base_batch_size=31)
    halves = [open_data(settings, DIGITS, 0, rank=rank, processes=2) for rank in range(2)]
    for epoch in (None, 0):
        (whole, *_), *parts = (
            [n for _, n in each.unlabelled_batches(epoch)] for each in (digits(base_batch_size=31), *halves)
        )
        assert sorted([*parts[0][0].tolist(), *parts[1][0].tolist()]) == sorted(whole.tolist())
        assert parts[0][0].tolist() == whole.tolist()[::2]
