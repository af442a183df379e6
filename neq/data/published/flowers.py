"""Oxford Flowers-102: 8,189 photos of 102 flowers, in official train, validation and test splits."""

from __future__ import annotations

from pathlib import Path

from neq.data.published.by_name import open_published
from neq.data.published.download import Download
from neq.data.published.lists import reading
from neq.data.published.published_set import ListedImage, PublishedSet
from neq.data.sources import Source, Split
from neq.utils.errors import UserError

_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_KEYS: dict[str, Split] = {"trnid": "train", "valid": "validation", "tstid": "test"}


def open_flowers(root: str | None) -> Source:
    """The flowers from ROOT/flowers (image folders) or ROOT/flowers-102 (as torchvision unpacks them).

    Args:
        root: the data folder; None: that of all data sets.
    """
    return open_published(FLOWERS, root)


def _read(raw: Path) -> list[ListedImage]:
    """The official splits: image numbers by split, and the class of every image, both from 1."""
    from scipy.io import loadmat
    from torchvision.datasets import Flowers102  # the published files do not name the classes

    with reading(raw / "setid.mat"):
        splits = {key: loadmat(raw / "setid.mat")[key].ravel().tolist() for key in _KEYS}
    with reading(raw / "imagelabels.mat"):
        labels = loadmat(raw / "imagelabels.mat")["labels"].ravel().tolist()
    names = Flowers102.classes
    listed = []
    for key, numbers in splits.items():
        for number in numbers:
            if not 1 <= number <= len(labels) or not 1 <= labels[number - 1] <= len(names):
                raise UserError(
                    f"{key} of setid.mat names image {number}, but imagelabels.mat has {len(labels)} labels "
                    f"of up to {len(names)} classes; delete both lists and run again"
                )
            label = int(labels[number - 1])
            listed.append(ListedImage(_KEYS[key], label, names[label - 1], f"jpg/image_{number:05d}.jpg"))
    return listed


FLOWERS = PublishedSet(
    name="flowers",
    script="flowers102",
    page=_PAGE,
    downloads=(
        Download("102flowers.tgz", f"{_PAGE}102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", ("jpg",)),
        Download("imagelabels.mat", f"{_PAGE}imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
        Download("setid.mat", f"{_PAGE}setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
    counts={"train": 1020, "validation": 1020, "test": 6149},
    read=_read,
    folder="flowers-102",
)
