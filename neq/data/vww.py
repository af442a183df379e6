"""Visual Wake Words: is there a person in the photo?

Read as image folders `person` and `not_person`, or from COCO's photos and instances annotations by the
published rule: person, if the box of some person covers over 0.5 % of the photo (crowds count as persons).
With mscoco_minival_ids.txt beside the annotations the test split is the published one; else COCO's val.

Source: Chowdhery et al., Visual Wake Words Dataset, arXiv 1906.05721.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

from neq.config.paths import data_folder
from neq.data.image_folder import open_prepared
from neq.data.remembering import remembered, stamp
from neq.data.sources import Source, Split, file_size, source_of_files
from neq.preparing.coco import SHARE, labelled
from neq.utils.errors import UserError

CLASSES = ("not_person", "person")
_YEARS = ("2017", "2014")
_MINIVAL = "mscoco_minival_ids.txt"
# Photos in the order of COCO's list: id, file name, label.
Listed = list[tuple[int, str, int]]


def open_vww(root: str | None) -> Source:
    """The photos, from image folders or from COCO in ROOT/coco or ROOT itself.

    Args:
        root: the data folder; none: that of all data sets.

    Raises:
        UserError: they are not there, or not whole.
    """
    prepared = open_prepared("vww", root)
    if prepared is not None:
        return prepared
    base = data_folder(root)
    for place in (base / "coco", base):
        for year in _YEARS:
            if all(_annotations(place, part, year).is_file() for part in ("train", "val")):
                return _of_coco(place, year)
    raise UserError(
        f"data set vww is not in {str(base)!r}; put COCO there, as coco/train2017, coco/val2017 and "
        "coco/annotations/instances_train2017.json and instances_val2017.json from https://cocodataset.org "
        "(or 2014), or image folders made by train_test_split/vww.py, or give their folder with --root."
    )


def person_labels(annotations: Path) -> Listed:
    """What the published rule says of every photo that COCO's annotations list.

    Args:
        annotations: an instances file.

    Raises:
        UserError: it is damaged.
    """
    return [(number, name, int(shown)) for number, name, shown in labelled(annotations, "box")]


def _annotations(folder: Path, part: str, year: str) -> Path:
    return folder / "annotations" / f"instances_{part}{year}.json"


def _of_coco(folder: Path, year: str) -> Source:
    """COCO of one year, divided by its own lists or the published minival list."""
    minival = _minival(folder)
    splits: dict[Split, list[tuple[str, int]]] = {"train": [], "test": []}
    for part in ("train", "val"):
        path = _annotations(folder, part, year)
        # The training file is half a gigabyte of JSON.
        listed: Listed = remembered("vww", stamp([str(path)], SHARE), partial(person_labels, path))
        for number, name, label in listed:
            in_test = part == "val" if minival is None else number in minival
            splits["test" if in_test else "train"].append((str(folder / f"{part}{year}" / name), label))
    files = [file for photos in splits.values() for file, _ in photos]
    missing = [file for file in files if file_size(file) < 0]
    if missing:
        raise UserError(
            f"data set vww in {str(folder)!r} is incomplete ({len(missing)} of {len(files)} photos are "
            f"missing, the first {Path(missing[0]).relative_to(folder)}); "
            f"unpack train{year}.zip and val{year}.zip there."
        )
    division = "COCO's own train and val" if minival is None else f"the list {_MINIVAL}"
    notes = (f"vww is read from COCO {year}, divided by {division}",)
    source = source_of_files(CLASSES, splits, folder, notes)
    # The files' names do not say what was made of them.
    digest = hashlib.sha256(f"{source.fingerprint} {division}".encode() + source.labels.tobytes())
    return replace(source, fingerprint=digest.hexdigest())


def _minival(folder: Path) -> set[int] | None:
    """The photos of the published test split, where their list is there."""
    for path in (folder / _MINIVAL, folder / "annotations" / _MINIVAL):
        if path.is_file():
            try:
                return {int(line) for line in path.read_text(encoding="utf-8").split()}
            except (OSError, ValueError) as error:
                raise UserError(
                    f"file {str(path)!r} cannot be read as a list of numbers ({error})."
                ) from error
    return None
