import numpy as np
import pytest
import torch

from neq.config.schema import DataProvider
from neq.data.sources import Source, Split
from neq.data.splits import resplit, split, velocity_note
from neq.utils.errors import UserError


def no_image(index: int) -> torch.Tensor:
    raise AssertionError("splitting reads no image")


def made(*sizes: int, official: dict[Split, np.ndarray] | None = None) -> Source:
    """A source with so many images of each class, shuffled."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Source(tuple(f"c{n}" for n in range(len(sizes))), labels, no_image, official or {})


def same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second)


@pytest.mark.parametrize("use_validation", [True, False])
@pytest.mark.parametrize("from_validation", [True, False])
def test_splits_are_disjoint_and_complete(use_validation: bool, from_validation: bool) -> None:
    settings = DataProvider(use_validation=use_validation, use_validation_for_velocity=from_validation)
    parts = split(made(100, 100), settings, 0)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(200))
    assert all(part.dtype == np.int64 for part in parts.values())
    sizes = {name: len(part) for name, part in parts.items()}
    expected = {"train": 128, "validation": 32, "velocity": 0, "test": 40}
    if not use_validation:
        expected.update(train=160, validation=0)
    expected["velocity"] = 10
    expected["validation" if use_validation and from_validation else "train"] -= 10
    assert sizes == expected


def test_shares_of_all_photos_are_the_same_for_every_seed_and_list_of_images() -> None:
    """As under another corruption: only the labels decide."""
    source = made(100, 200, official={"train": np.arange(200), "test": np.arange(200, 300)})
    divided = resplit(source, (0.3, 0.2, 0.5), "all")
    zero, one = (split(divided, DataProvider(velocity_images=1), seed) for seed in (0, 1))
    assert [len(zero[name]) for name in ("train", "validation", "velocity", "test")] == [90, 59, 1, 150]
    assert all(np.bincount(source.labels[zero[name]])[0] in (19, 20, 30, 50) for name in ("train", "test"))
    assert sorted(np.concatenate(list(zero.values()))) == list(range(300))
    assert same(zero["train"], one["train"])
    assert same(zero["test"], one["test"])
    assert set(zero["validation"]) | set(zero["velocity"]) == set(one["validation"]) | set(one["velocity"])


def test_shares_of_the_official_test_split_leave_the_others_out() -> None:
    source = made(100, 200, official={"train": np.arange(200), "test": np.arange(200, 300)})
    parts = split(resplit(source, (0.3, 0.2, 0.5), "test"), DataProvider(velocity_images=1), 0)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(200, 300))
    with pytest.raises(UserError, match="needs an official test split"):
        resplit(made(10, 10), (0.3, 0.2, 0.5), "test")


def test_parts_of_training_are_disjoint_and_complete_for_every_seed() -> None:
    source = made(33, 77)
    whole = split(source, DataProvider(), 0)

    def part(first: float, last: float, seed: int = 0) -> dict[str, np.ndarray]:
        return split(source, DataProvider(train_part=(first, last)), seed)

    first, rest = part(0, 0.3), part(0.3, 1)
    assert not set(first["train"]) & set(rest["train"])
    assert same(np.union1d(first["train"], rest["train"]), whole["train"])
    assert all(same(first[name], whole[name]) for name in ("validation", "velocity", "test"))
    counts = np.bincount(source.labels[first["train"]])
    assert np.abs(counts - 0.3 * np.bincount(source.labels[whole["train"]])).max() <= 0.5
    assert same(first["train"], part(0, 0.3)["train"])


def test_every_class_is_cut_alike() -> None:
    source = made(50, 100, 150)
    parts = split(source, DataProvider(use_validation_for_velocity=False, velocity_images=1), 0)
    assert np.bincount(source.labels[parts["test"]]).tolist() == [10, 20, 30]
    assert np.bincount(source.labels[parts["validation"]]).tolist() == [8, 16, 24]


def test_a_class_of_one_image_is_cut_without_regard_to_classes() -> None:
    source = made(1, 100, official={"train": np.arange(101), "test": np.arange(0)})
    with pytest.raises(UserError, match="the test split has 0"):
        split(source, DataProvider(), 0)
    lonely = made(1, 100)
    only = int(np.flatnonzero(lonely.labels == 0)[0])
    parts = split(lonely, DataProvider(), 0)
    assert any(only in part for part in parts.values())


def test_the_test_split_is_the_same_for_every_seed_and_the_others_are_not() -> None:
    zero, again, one = (split(made(100, 100), DataProvider(), seed) for seed in (0, 0, 1))
    assert all(same(zero[name], again[name]) for name in zero)
    assert same(zero["test"], one["test"])
    assert not same(zero["validation"], one["validation"])
    assert not same(zero["velocity"], one["velocity"])


def test_official_splits_are_used() -> None:
    official: dict[Split, np.ndarray] = {
        "train": np.arange(60),
        "validation": np.arange(60, 80),
        "test": np.arange(80, 100),
    }
    parts = split(made(50, 50, official=official), DataProvider(), 7)
    assert same(parts["train"], official["train"])
    assert same(parts["test"], official["test"])
    assert same(np.sort(np.concatenate([parts["validation"], parts["velocity"]])), official["validation"])


def test_an_official_validation_split_never_becomes_training_data() -> None:
    official: dict[Split, np.ndarray] = {"validation": np.arange(60, 80), "test": np.arange(80, 100)}
    parts = split(made(50, 50, official=official), DataProvider(use_validation=False), 0)
    assert len(parts["validation"]) == 0
    assert sorted(np.concatenate([parts["train"], parts["velocity"]])) == list(range(60))


def test_only_one_class() -> None:
    with pytest.raises(UserError, match="1 class"):
        split(made(100), DataProvider(), 0)


def test_too_few_images_to_cut() -> None:
    with pytest.raises(UserError, match="test split would take 1 of 1"):
        split(made(1, 0), DataProvider(), 0)
    with pytest.raises(UserError, match=r"validation split would take 16 of 16.*validation_percentage"):
        split(made(10, 10), DataProvider(validation_percentage=0.99), 0)


@pytest.mark.parametrize(("wanted", "drawn"), [(9, 9), (10, 5), (5000, 5)])
def test_velocity_takes_half_of_a_split_that_it_would_empty(wanted: int, drawn: int) -> None:
    settings = DataProvider(velocity_images=wanted)
    parts = split(made(30, 30), settings, 0)
    assert (len(parts["velocity"]), len(parts["validation"])) == (drawn, 10 - drawn)
    note = velocity_note({name: len(part) for name, part in parts.items()}, settings)
    if drawn == wanted:
        assert note is None
    else:
        assert note is not None
        assert f"5 images, half of a small split, instead of velocity_images {wanted}" in note


def test_velocity_takes_half_of_a_small_train_split() -> None:
    parts = split(made(30, 30), DataProvider(use_validation=False, velocity_images=48), 0)
    assert (len(parts["velocity"]), len(parts["train"])) == (24, 24)


def test_24_photos_are_enough_at_the_defaults() -> None:
    parts = split(made(12, 12), DataProvider(), 0)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 15,
        "validation": 2,
        "velocity": 2,
        "test": 5,
    }


def test_one_image_cannot_be_divided_between_validation_and_velocity() -> None:
    with pytest.raises(UserError, match=r"validation split has 1 image\(s\).*raise validation_percentage"):
        split(made(3, 3), DataProvider(validation_percentage=0.1), 0)


def test_a_class_that_is_tested_but_not_trained() -> None:
    labels = np.array([0] * 50 + [1] * 50 + [2])
    official: dict[Split, np.ndarray] = {"train": np.arange(100), "test": np.array([0, 100])}
    official["train"] = np.arange(1, 100)
    source = Source(("a", "b", "rare"), labels, no_image, official)
    with pytest.raises(UserError, match=r"class 'rare' \(one of 1\).* the 79 training images"):
        split(source, DataProvider(), 0)
