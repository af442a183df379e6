import os
import pickle
import random
import signal
import warnings
from functools import partial

import numpy as np
import pytest
import torch

from neq.config.schema import Augmentation, DataProvider
from neq.data.loading import Batch, Images, Loader, eval_keys, train_keys
from neq.data.transforms import eval_transform, train_transform
from neq.utils.errors import UserError


def pixel(pixels: torch.Tensor, index: int) -> torch.Tensor:
    if index == 99:
        raise UserError("image '99.jpg' cannot be read")
    if index == 98:
        os.kill(os.getpid(), signal.SIGKILL)
    return pixels[index]


def resized(pixels: torch.Tensor, augmentation: Augmentation, index: int) -> torch.Tensor:
    image: torch.Tensor = eval_transform(8, augmentation)(pixel(pixels, index))
    return image


def images(count: int = 20, augmentation: Augmentation = "photo", seed: int = 0) -> Images:
    drawn = torch.randint(256, (count, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    training = train_transform(DataProvider(), 8, augmentation) if augmentation != "none" else None
    read = partial(pixel, drawn), partial(resized, drawn, augmentation)
    return Images(*read, np.arange(count) % 2, training, seed)


def flat(keys: list[list[tuple[int | None, int]]]) -> list[int]:
    return [index for batch in keys for _, index in batch]


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


def test_an_epoch_is_a_permutation_by_seed_and_epoch() -> None:
    indices = np.arange(100, 120)
    keys = train_keys(indices, 5, seed=0, epoch=0)
    assert sorted(flat(keys)) == indices.tolist()
    assert keys == train_keys(indices, 5, seed=0, epoch=0)
    assert flat(keys) != flat(train_keys(indices, 5, seed=0, epoch=1))
    assert flat(keys) != flat(train_keys(indices, 5, seed=1, epoch=0))
    assert flat(keys) != indices.tolist()


def test_epochs_take_the_views_of_an_image_in_turn() -> None:
    indices = np.arange(20)
    for epoch in range(5):
        free, viewed = train_keys(indices, 5, 0, epoch), train_keys(indices, 5, 0, epoch, views=2)
        assert flat(viewed) == flat(free)
        assert {view for batch in viewed for view, _ in batch} == {epoch % 2}
    weights = torch.ones(20)
    weights[3] = 100.0
    drawn = [key for batch in train_keys(indices, 5, 0, 4, weights, views=3) for key in batch]
    assert [view for view, index in drawn if index == 3][:4] == [1, 2, 0, 1]


@pytest.mark.parametrize(
    ("count", "sizes"), [(20, [8, 8]), (16, [8, 8]), (8, [8]), (9, [8]), (7, [7]), (2, [2])]
)
def test_an_incomplete_training_batch_is_dropped_unless_it_is_the_only_one(
    count: int, sizes: list[int]
) -> None:
    keys = train_keys(np.arange(count), 8, seed=0, epoch=0)
    assert [len(batch) for batch in keys] == sizes
    assert len(set(flat(keys))) == sum(sizes)


def test_images_drawn_by_weights_make_classes_come_equally_often() -> None:
    labels = np.repeat([0, 1, 2], [1000, 200, 50])
    weights = torch.tensor(1 / np.array([1000, 200, 50]))[labels]
    keys = train_keys(np.arange(1250), 50, seed=0, epoch=3, weights=weights)
    assert [len(batch) for batch in keys] == [50] * 25
    counts = np.bincount(labels[flat(keys)])
    assert all(abs(count - 1250 / 3) < 60 for count in counts)  # a standard deviation is 17
    assert keys == train_keys(np.arange(1250), 50, seed=0, epoch=3, weights=weights)
    assert flat(keys) != flat(train_keys(np.arange(1250), 50, seed=0, epoch=4, weights=weights))
    drawn = [key for batch in keys for key in batch]
    assert len(set(drawn)) == 1250  # an image that comes again is augmented anew
    assert {epoch for epoch, _ in drawn if epoch is not None and epoch < 2**32} == {3}


def test_evaluation_sees_every_image_once_in_order() -> None:
    keys = eval_keys(np.arange(5, 25), 8)
    assert [len(batch) for batch in keys] == [8, 8, 4]
    assert flat(keys) == list(range(5, 25))


@pytest.mark.parametrize("augmentation", ["photo", "square"])
def test_the_number_of_workers_changes_nothing(augmentation: Augmentation) -> None:
    drawn: dict[int, list[list[Batch]]] = {}
    for n_worker in (0, 2):
        loader = Loader(images(augmentation=augmentation), n_worker, pin_memory=False)
        passes = [train_keys(np.arange(20), 6, 0, epoch) for epoch in (0, 1, 0)]
        drawn[n_worker] = [list(loader.batches(plan)) for plan in [*passes, eval_keys(np.arange(20), 8)]]
        loader.close()
    for alone, shared in zip(drawn[0], drawn[2], strict=True):
        assert equal(alone, shared)
    first, second, again, _ = drawn[0]
    assert equal(first, again)
    assert not equal(first, second)


def test_the_same_image_is_cropped_anew_every_epoch_and_seed() -> None:
    crops = [images(seed=seed)[epoch, 3] for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    tensors = [crop[0] for crop in crops if not isinstance(crop, UserError)]
    assert torch.equal(tensors[0], tensors[1])
    assert not torch.equal(tensors[0], tensors[2])
    assert not torch.equal(tensors[0], tensors[3])


@pytest.mark.parametrize("n_worker", [0, 2])
def test_global_random_states_stay_as_they_are(n_worker: int) -> None:
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())
    loader = Loader(images(), n_worker, pin_memory=False)
    for _ in range(2):
        list(loader.batches(train_keys(np.arange(20), 6, 0, 0)))
    loader.load([(0, 1), (None, 2)])
    loader.close()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert pickle.dumps(np.random.get_state()) == before[2]


def test_global_random_states_change_nothing() -> None:
    torch.manual_seed(1)
    first = images()[0, 3]
    torch.manual_seed(2)
    second = images()[0, 3]
    assert not isinstance(first, UserError)
    assert not isinstance(second, UserError)
    assert torch.equal(first[0], second[0])


def test_batches_are_images_and_labels() -> None:
    loader = Loader(images(), 0, pin_memory=False)
    pictures, labels = loader.load([(None, 1), (None, 2)])
    assert pictures.shape == (2, 3, 8, 8)
    assert pictures.dtype == torch.uint8
    assert labels.tolist() == [1, 0]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("n_worker", [0, 2])
def test_a_users_error_arrives_in_one_line_and_the_loader_goes_on(n_worker: int) -> None:
    loader = Loader(images(100), n_worker, pin_memory=False)
    with pytest.raises(UserError) as error:
        list(loader.batches([[(None, 0), (None, 99)], [(None, 1)]]))
    assert str(error.value) == "image '99.jpg' cannot be read"
    assert len(list(loader.batches([[(None, 0)], [(None, 1)]]))) == 2
    loader.close()


def test_a_dead_worker_is_an_error() -> None:
    loader = Loader(images(100), 1, pin_memory=False)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(loader.batches([[(None, 98)]]))
    loader.close()


@pytest.mark.parametrize("n_worker", [0, 1])
def test_a_new_pass_ends_the_one_before(n_worker: int) -> None:
    loader = Loader(images(), n_worker, pin_memory=False)
    plan = eval_keys(np.arange(20), 4)
    old = loader.batches(plan)
    next(old)
    assert equal(list(loader.batches(plan)), [loader.load(keys) for keys in plan])
    with pytest.raises(AssertionError, match="another pass"):
        next(old)
    loader.close()


def test_images_pickle_for_spawned_workers() -> None:
    copy = pickle.loads(pickle.dumps(images()))
    assert equal([Loader(copy, 0, False).load([(0, 1)])], [Loader(images(), 0, False).load([(0, 1)])])


def test_more_workers_than_processors_warn_of_nothing() -> None:
    with warnings.catch_warnings(record=True, action="always") as caught:
        loader = Loader(images(), 1000, pin_memory=False)  # the processes start with the first batch
    loader.close()
    assert caught == []
