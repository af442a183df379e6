"""Makes Visual Wake Words out of COCO; --help tells how."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.preparing import Download, Listed, Published, Split
from neq.preparing.coco import labelled
from neq.preparing.lists import reading
from neq.utils.errors import UserError

ABOUT = """\
Visual Wake Words (Chowdhery et al. 2019, arXiv 1906.05721): is a person in the photo? 123,287 photos of COCO.

An image is of class person if the box of some person covers over 0.5 % of it. The test split are the 8,059
images of the published minival list, train is everything else of COCO's train and val (115,228 images); both
years hold the same images.

source   https://cocodataset.org (2014: 19 GB, 2017: 19 GB), and the minival list of tensorflow/models
licence  annotations CC BY 4.0; photos of Flickr, each under its own terms, which the annotations name
"""
MINIVAL = "mscoco_minival_ids.txt"
# A commit, so that the list cannot change.
MINIVAL_URL = (
    "https://raw.githubusercontent.com/tensorflow/models/245f66dd6304869c082840dedce2f45c6af4e78f/"
    f"research/object_detection/data/{MINIVAL}"
)
MD5 = {
    "train2014.zip": "0da8c0bd3d6becc4dcb32757491aca88",
    "val2014.zip": "a3d79f5ed8d289b7a7554ce06a5782b3",
    "annotations_trainval2014.zip": "0a379cfc70b0e71301e0f377548639bd",
    "train2017.zip": "cced6f7f71b7629ddf16f17bbcfab6b2",
    "val2017.zip": "442b8da7639aecaf257c1dceb8ba8c80",
    "annotations_trainval2017.zip": "f4bbac642086de4f52a3fdda2de5fa2c",
}


def read(raw: Path, year: int, area: str) -> list[Listed]:
    """Labels every image of COCO's train and val, and divides them by the minival list."""
    with reading(raw / MINIVAL):
        minival = {int(line) for line in (raw / MINIVAL).read_text().split()}
    listed, found = [], set()
    for part in (f"train{year}", f"val{year}"):
        for number, file, is_person in labelled(raw / "annotations" / f"instances_{part}.json", area):
            found.add(number)
            split: Split = "test" if number in minival else "train"
            name = "person" if is_person else "not_person"
            listed.append(Listed(split, int(is_person), name, f"{part}/{file}"))
    if not minival <= found:
        raise UserError(
            f"{len(minival - found):,} of {len(minival):,} images of {MINIVAL} are not in COCO's lists of "
            f"{year}; all are needed; put the published lists into --raw."
        )
    return listed


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this set alone."""
    parser.add_argument(
        "--year", type=int, choices=(2014, 2017), default=2014, help="of COCO (default: 2014)"
    )
    parser.add_argument(
        "--area",
        choices=("box", "segment"),
        default="box",
        help="what of a person is measured: its box, as the paper says (default), or its segmentation, as "
        "the published scripts do",
    )
    parser.add_argument(
        "--small-side", metavar="PIXELS", type=int, help="shrink larger images to this smaller side, as JPEG"
    )


def describe(flags: argparse.Namespace) -> Published:
    """The set as the flags want it."""
    year, area, side = flags.year, flags.area, flags.small_side
    if side is not None and side < 1:
        raise UserError(f"--small-side is {side}; at least 1 pixel is allowed, as 256.")
    parts = (f"train{year}", f"val{year}")
    annotations = f"annotations_trainval{year}.zip"
    host = "http://images.cocodataset.org"
    return Published(
        name="vww",
        downloads=(
            *(
                Download(f"{part}.zip", f"{host}/zips/{part}.zip", MD5[f"{part}.zip"], (part,))
                for part in parts
            ),
            Download(
                annotations,
                f"{host}/annotations/{annotations}",
                MD5[annotations],
                tuple(f"annotations/instances_{part}.json" for part in parts),
            ),
            Download(MINIVAL, MINIVAL_URL),
        ),
        counts={"train": 115_228, "test": 8_059},
        read=lambda raw: read(raw, year, area),
        options={"year": year, "area": area, "small_side": side},
        small_side=side,
    )


if __name__ == "__main__":
    sys.exit(run_script(ABOUT, describe, add_flags))
