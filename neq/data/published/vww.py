"""Visual Wake Words: is a person in the photo? 123,287 photos of COCO in two classes.

A photo shows a person if the box of some person covers over 0.5 % of it; crowds count as persons. The
published test split is the minival list; without it, a set opened by name uses COCO's own val.

Source: Chowdhery et al., Visual Wake Words Dataset, arXiv 1906.05721.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from neq.config.paths import data_folder
from neq.data.disk_memo import file_stamp, memoize
from neq.data.image_folder import open_prepared
from neq.data.published.by_name import source_of_lists
from neq.data.published.download import Download
from neq.data.published.lists import read_json, reading
from neq.data.published.published_set import ListedImage, PublishedSet
from neq.data.sources import Source, Split
from neq.utils.errors import UserError

# A person counts above this share of the photo.
SHARE = 0.005
Area = Literal["box", "segment"]
_CLASSES = ("not_person", "person")
_YEARS = (2017, 2014)
_PAGE = "https://cocodataset.org"
_MINIVAL = "mscoco_minival_ids.txt"
# A commit, so that the list cannot change.
_MINIVAL_URL = (
    "https://raw.githubusercontent.com/tensorflow/models/245f66dd6304869c082840dedce2f45c6af4e78f/"
    f"research/object_detection/data/{_MINIVAL}"
)
_MD5 = {
    "train2014.zip": "0da8c0bd3d6becc4dcb32757491aca88",
    "val2014.zip": "a3d79f5ed8d289b7a7554ce06a5782b3",
    "annotations_trainval2014.zip": "0a379cfc70b0e71301e0f377548639bd",
    "train2017.zip": "cced6f7f71b7629ddf16f17bbcfab6b2",
    "val2017.zip": "442b8da7639aecaf257c1dceb8ba8c80",
    "annotations_trainval2017.zip": "f4bbac642086de4f52a3fdda2de5fa2c",
}


def open_vww(root: str | None) -> Source:
    """The photos from ROOT/vww (image folders), or from COCO in ROOT/coco or ROOT itself; never downloaded.

    Args:
        root: the data folder; None: that of all data sets.

    Raises:
        UserError: the photos are not there, or incomplete.
    """
    prepared = open_prepared("vww", root)
    if prepared is not None:
        return prepared
    base = data_folder(root)
    for folder in (base / "coco", base):
        for year in _YEARS:
            if all(_annotations(folder, part, year).is_file() for part in ("train", "val")):
                return _open_coco(folder, year)
    raise UserError(
        f"data set vww is not in {str(base)!r}; put COCO there, as coco/train2017, coco/val2017 and "
        f"coco/annotations/instances_train2017.json and instances_val2017.json from {_PAGE} (or 2014), or "
        "image folders made by train_test_split/vww.py, or give their folder with --root"
    )


def published_vww(year: int, area: Area, small_side: int | None) -> PublishedSet:
    """Visual Wake Words with the published test split.

    Args:
        year: of COCO, 2014 or 2017; both have the same images.
        area: as in `person_images`.
        small_side: shrink larger images to this smaller side, in pixels; None: keep all sizes.
    """
    annotations = f"annotations_trainval{year}.zip"
    host = "http://images.cocodataset.org"
    parts = (f"train{year}", f"val{year}")
    return PublishedSet(
        name="vww",
        script="vww",
        page=_PAGE,
        downloads=(
            *(
                Download(f"{part}.zip", f"{host}/zips/{part}.zip", _MD5[f"{part}.zip"], (part,))
                for part in parts
            ),
            Download(
                annotations,
                f"{host}/annotations/{annotations}",
                _MD5[annotations],
                tuple(f"annotations/instances_{part}.json" for part in parts),
            ),
            Download(_MINIVAL, _MINIVAL_URL),
        ),
        counts={"train": 115_228, "test": 8_059},
        read=partial(_read_published, year=year, area=area),
        options={"year": year, "area": area, "small_side": small_side},
        small_side=small_side,
    )


def labelled_images(path: Path, area: Area) -> list[tuple[int, str, bool]]:
    """Id, file name and label of every image of an annotation file, kept in the cache folder.

    Args:
        path: COCO's instances annotations.
        area: as in `person_images`.

    Raises:
        UserError: the file is missing or damaged.
    """

    def compute() -> list[tuple[int, str, bool]]:
        instances = read_json(path)
        with reading(path):
            persons = person_images(instances, area)
            return [
                (image["id"], image["file_name"], image["id"] in persons) for image in instances["images"]
            ]

    # The training annotations are half a gigabyte of JSON.
    images: list[tuple[int, str, bool]] = memoize("vww", file_stamp([str(path)], SHARE, area), compute)
    return images


def person_images(instances: dict[str, Any], area: Area) -> set[int]:
    """The ids of the images with a person above the threshold.

    Args:
        instances: COCO's instances annotations.
        area: "box": the area of the bounding box, as the paper defines; "segment": that of the segmentation,
            which the field `area` holds and the published scripts read.
    """
    (person,) = (category["id"] for category in instances["categories"] if category["name"] == "person")
    sizes = {image["id"]: image["width"] * image["height"] for image in instances["images"]}
    images = set()
    for annotation in instances["annotations"]:
        if annotation["category_id"] == person:
            covered = (
                annotation["area"] if area == "segment" else annotation["bbox"][2] * annotation["bbox"][3]
            )
            if covered / sizes[annotation["image_id"]] > SHARE:
                images.add(annotation["image_id"])
    return images


def _open_coco(folder: Path, year: int) -> Source:
    """COCO of one year, split by the minival list if it is there, otherwise into COCO's own train and val."""
    lists = [path for path in (folder / _MINIVAL, folder / "annotations" / _MINIVAL) if path.is_file()]
    minival = _read_minival(lists[0]) if lists else None
    listed = [image for _, image in _read_coco(folder, year, "box", minival)]
    # Part of the fingerprint: a changed wording would look like other data.
    division = f"the list {_MINIVAL}" if lists else "COCO's own train and val"
    notes = (f"vww is read from COCO {year}, divided by {division}",)
    remedy = f"unpack train{year}.zip and val{year}.zip there"
    source = source_of_lists("vww", listed, folder, str, remedy, folder, notes)
    # File names do not show the labels and splits.
    digest = hashlib.sha256(f"{source.fingerprint} {division}".encode() + source.labels.tobytes())
    return replace(source, fingerprint=digest.hexdigest())


def _read_published(raw: Path, year: int, area: Area) -> list[ListedImage]:
    """Label every image of COCO's train and val, and split them by the minival list."""
    minival = _read_minival(raw / _MINIVAL)
    images = _read_coco(raw, year, area, minival)
    lacking = minival - {number for number, _ in images}
    if lacking:
        raise UserError(
            f"{len(lacking):,} of {len(minival):,} images of {_MINIVAL} are not in COCO's lists of {year}; "
            "all are needed; put the published lists into --raw"
        )
    return [image for _, image in images]


def _read_coco(
    folder: Path, year: int, area: Area, minival: set[int] | None
) -> list[tuple[int, ListedImage]]:
    """Every image of COCO's train and val with its id, in the order of the annotations."""
    listed = []
    for part in ("train", "val"):
        for number, file, is_person in labelled_images(_annotations(folder, part, year), area):
            in_test = part == "val" if minival is None else number in minival
            split: Split = "test" if in_test else "train"
            name = _CLASSES[is_person]
            listed.append((number, ListedImage(split, int(is_person), name, f"{part}{year}/{file}")))
    return listed


def _annotations(folder: Path, part: str, year: int) -> Path:
    return folder / "annotations" / f"instances_{part}{year}.json"


def _read_minival(path: Path) -> set[int]:
    """The ids of the published test split."""
    with reading(path):
        return {int(line) for line in path.read_text(encoding="utf-8").split()}
