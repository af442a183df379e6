from dataclasses import replace

import pytest

from neq.compression.run_images import open_images
from neq.results.best_network import load_best
from neq.runs import read_summary
from neq.utils.errors import UserError


def test_the_accuracy_is_that_of_the_run(tiny_run):
    best = load_best(tiny_run)
    with open_images(best) as images:
        assert images.top1(best.network) == pytest.approx(read_summary(tiny_run)["test_top1"], abs=1e-9)
        batches = list(images.batches())
    assert 1 <= len(batches) <= 8
    assert all(each.shape[1:] == (3, best.image_size, best.image_size) for each, _ in batches)


def test_images_of_other_classes_are_refused(tiny_run):
    best = replace(load_best(tiny_run), classes=("one", "two"))
    with pytest.raises(UserError, match=r"have 10 classes, the network of .* 2"), open_images(best):
        raise AssertionError("not reached")
