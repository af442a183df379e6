import pickle

import numpy as np
import torch
from sklearn.datasets import load_digits

from neq.data.digits import open_digits


def test_pixels_are_those_of_scikit_learn() -> None:
    source, reference = open_digits(), load_digits()
    assert len(source.labels) == 1797
    assert source.labels.dtype == np.int64
    assert (source.labels == reference.target).all()
    assert source.classes == tuple("0123456789")
    for index in range(1797):
        image = source.image(index)
        assert image.shape == (3, 8, 8)
        assert image.dtype == torch.uint8
        expected = torch.tensor([[round(v * 255 / 16) for v in row] for row in reference.images[index]])
        assert (image == expected).all()


def test_it_has_no_official_splits_and_pickles() -> None:
    source = pickle.loads(pickle.dumps(open_digits()))
    assert source.official == {}
    assert source.fingerprint is None
    assert torch.equal(source.image(5), open_digits().image(5))
