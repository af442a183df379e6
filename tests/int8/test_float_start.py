"""A network and images to quantize it with."""

import numpy as np
import pytest
import torch

from neq.config import resolve
from neq.int8 import Images
from neq.int8.float_start import of_name, of_run
from neq.utils.errors import UserError


def start(**settings):
    return of_name(
        resolve({}, {"net_name": "mcunet-in0", "dataset": "digits", "image_size": 16, **settings}).config
    )


def test_images_are_of_the_split_asked_for_the_same_each_time_and_normalized():
    found, again = start(), start()
    train, test = found.images("train", 20), found.images("test", 20)
    assert train.shape == test.shape == (20, 3, 16, 16)
    assert torch.equal(train, again.images("train", 20))
    assert not torch.equal(train, test)
    mean, std = found.made_for.mean[0], found.made_for.std[0]
    assert found.made_for == Images(16, (mean,) * 3, (std,) * 3)
    assert float(train.min()) == pytest.approx((0 - mean) / std, abs=1e-4)
    assert len(found.images("test", 10_000)) == len(found.images("test", 20_000)) < 10_000


def test_a_new_classifier_knows_no_classes_and_one_of_a_file_does(tmp_path):
    found = start()
    assert found.classes == ()
    assert not found.network.training
    torch.save(found.network.state_dict(), tmp_path / "a.pth")
    assert len(start(weights=str(tmp_path / "a.pth")).classes) == 10


@pytest.mark.slow
def test_a_run_brings_its_network_its_classes_and_its_images(tiny_run):
    found = of_run(tiny_run)
    config = found.config.data_provider
    assert found.made_for.size == config.image_size
    assert len(found.classes) == 10
    assert len(found.images("train", 5)) == 5
    before, after = found.accuracies(quantized(found), 50)
    assert before == pytest.approx(after, abs=10)


def quantized(found):
    from neq.int8 import quantize

    return quantize(found.network, found.images("train", 24), found.made_for, found.classes).network


def test_images_of_other_classes_are_refused(tiny_run, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (12, 16, 16, 3), dtype=np.uint8), np.arange(12) % 3
    np.savez(tmp_path / "other.npz", x=x, y=y)
    monkeypatch.setattr("neq.int8.float_start.run_source", lambda settings: _opened(settings.root))
    with pytest.raises(UserError, match=r"have 3 classes, the network of .* 10; give the images"):
        of_run(tiny_run, tmp_path / "other.npz")


def _opened(root):
    from neq.data import open_source

    return open_source("npz", str(root))
