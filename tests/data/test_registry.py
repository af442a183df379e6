import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from neq.config import catalog, dataset, datasets
from neq.config.schema import DataProvider
from neq.data import open_data, open_source
from neq.data.registry import opener
from neq.utils.errors import UserError


@pytest.mark.parametrize("name", datasets())
def test_every_data_set_of_the_catalog_has_an_opener(name: str) -> None:
    found = opener(name)
    assert list(inspect.signature(found).parameters) == ["root"]
    assert found.__name__ == f"open_{name}"


def test_an_unknown_data_set() -> None:
    with pytest.raises(UserError, match=r"dataset 'digit' is unknown; did you mean 'digits'\?"):
        open_source("digit", None)


# The two places of a new data set: its loader ...
LOADERS = """
import numpy as np
from torchvision import datasets

from neq.data.sources import source_of_arrays


def open_stripes(root):
    \"\"\"Images of one's own: upright or lying stripes.\"\"\"
    lying = np.zeros((30, 8, 8), np.uint8)
    lying[:, ::2] = 255
    images = np.concatenate([lying, lying.transpose(0, 2, 1)])
    return source_of_arrays(["lying", "upright"], {"train": (images, np.arange(60) // 30)})


def open_fake(root):
    \"\"\"A data set of torchvision.\"\"\"
    splits = {}
    for number, split in enumerate(("train", "test")):
        part = datasets.FakeData(24, (3, 8, 8), num_classes=2, random_offset=24 * number)
        pairs = [(np.asarray(image), label) for image, label in part]
        splits[split] = tuple(map(np.array, zip(*pairs)))
    return source_of_arrays(["a", "b"], splits)
"""
# ... and its entry in datasets.yaml.
ENTRIES = """
stripes:
  opener: new_loaders:open_stripes
  augmentation: none
  mean_std: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
fake:
  opener: new_loaders:open_fake
  augmentation: square
  mean_std: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
"""


@pytest.fixture
def _new_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shipped = catalog.configs_folder() / "datasets.yaml"
    (tmp_path / "datasets.yaml").write_text(shipped.read_text() + ENTRIES)
    (tmp_path / "new_loaders.py").write_text(LOADERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalog, "configs_folder", lambda: tmp_path)
    catalog.datasets.cache_clear()
    yield
    catalog.datasets.cache_clear()


@pytest.mark.usefixtures("_new_sets")
@pytest.mark.parametrize(("name", "train"), [("stripes", 38), ("fake", 19)])
def test_a_new_data_set_is_a_loader_and_an_entry(name: str, train: int) -> None:
    settings = DataProvider(dataset=name, image_size=8, base_batch_size=4, velocity_images=2)
    with open_data(settings, dataset(name), seed=0) as data:
        assert data.counts["train"] == train
        images, labels = next(data.train_batches(0))
        assert images.shape == (4, 3, 8, 8)
        assert set(labels.tolist()) <= {0, 1}
        assert torch.isfinite(images).all()
