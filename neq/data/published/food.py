"""Food-101: 101,000 photos of 101 dishes, in official train and test splits."""

from __future__ import annotations

from pathlib import Path

from neq.data.published.by_name import open_published
from neq.data.published.download import Download
from neq.data.published.lists import read_json
from neq.data.published.published_set import ListedImage, PublishedSet
from neq.data.sources import Source, Split
from neq.utils.errors import UserError

_TOP = "food-101"
_LISTS: dict[Split, str] = {"train": f"{_TOP}/meta/train.json", "test": f"{_TOP}/meta/test.json"}


def open_food(root: str | None) -> Source:
    """The dishes from ROOT/food (image folders) or ROOT/food-101 (as the archive unpacks).

    Args:
        root: the data folder; None: that of all data sets.
    """
    return open_published(FOOD, root)


def _read(raw: Path) -> list[ListedImage]:
    """The official splits: a list of images for each class; classes are numbered from 0 by name."""
    lists = {split: read_json(raw / path) for split, path in _LISTS.items()}
    for split, images in lists.items():
        if not _is_list_of_images(images):
            raise UserError(
                f"list {str(raw / _LISTS[split])!r} is not of the form class: [image, ...]; delete it and "
                "run again to get the published one"
            )
    numbers = {name: number for number, name in enumerate(sorted({*lists["train"], *lists["test"]}))}
    return [
        ListedImage(split, numbers[name], name, f"{_TOP}/images/{image}.jpg")
        for split, images in lists.items()
        for name in images
        for image in images[name]
    ]


def _is_list_of_images(images: object) -> bool:
    return isinstance(images, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in images.values()
    )


FOOD = PublishedSet(
    name="food",
    script="food101",
    page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    downloads=(
        Download(
            "food-101.tar.gz",
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "85eeb15f3717b99a5da872d97d918f87",
            (f"{_TOP}/images", *_LISTS.values()),
        ),
    ),
    counts={"train": 75750, "test": 25250},
    read=_read,
)
