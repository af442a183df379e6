"""Caltech-UCSD Birds-200-2011: 11,788 photos of 200 birds, in official train and test splits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from neq.config.paths import data_folder
from neq.data.published.by_name import open_published
from neq.data.published.download import Download
from neq.data.published.lists import rows
from neq.data.published.published_set import ListedImage, PublishedSet
from neq.data.sources import Source
from neq.utils.errors import UserError

_TOP = "CUB_200_2011/"
_LISTS = ("images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt")


def open_cub(root: str | None) -> Source:
    """The birds from ROOT/cub (image folders), or from ROOT/CUB_200_2011 or ROOT (as the archive unpacks).

    Args:
        root: the data folder; None: that of all data sets.
    """
    folder = data_folder(root)
    if not (folder / _TOP).is_dir() and (folder / _LISTS[-1]).is_file():  # the unpacked folder itself
        return open_published(replace(CUB, downloads=(), read=partial(_read, top="")), root)
    return open_published(CUB, root)


def _read(raw: Path, top: str = _TOP) -> list[ListedImage]:
    """The official splits: four lists, joined by the numbers of images and classes."""
    folder = raw / top
    names, classes, labels, trained = (dict(rows(folder / name, 2)) for name in _LISTS)
    if not names.keys() == labels.keys() == trained.keys():
        raise UserError(
            f"the lists in {str(folder)!r} have {len(names)}, {len(labels)} and {len(trained)} images; "
            f"{_LISTS[0]}, {_LISTS[2]} and {_LISTS[3]} must have the same; unpack the published archive again"
        )
    for image, label in labels.items():
        if label not in classes or not label.isdecimal() or trained[image] not in ("0", "1"):
            raise UserError(
                f"image {image} has class {label!r} and split {trained[image]!r} in the lists of "
                f"{str(folder)!r}; a class of {_LISTS[1]}, and 0 or 1, are allowed; unpack the published "
                "archive again"
            )
    return [
        ListedImage(
            "train" if trained[image] == "1" else "test",
            int(labels[image]),
            classes[labels[image]],
            f"{top}images/{path}",
        )
        for image, path in names.items()
    ]


CUB = PublishedSet(
    name="cub",
    script="cub200",
    page="https://data.caltech.edu/records/65de6-vp158",
    downloads=(
        Download(
            "CUB_200_2011.tgz",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "97eceeb196236b17998738112f37df78",
            (f"{_TOP}images", *(f"{_TOP}{name}" for name in _LISTS)),
        ),
    ),
    counts={"train": 5994, "test": 5794},
    read=_read,
)
