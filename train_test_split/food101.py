"""Downloads Food-101 and splits it officially; --help tells how."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.preparing import Download, Listed, Published, Split
from neq.preparing.lists import read_json
from neq.utils.errors import UserError

ABOUT = """\
Food-101: 101,000 photos of 101 dishes, official train and test splits.

source   https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/ (5 GB)
licence  photos of foodspotting.com, not owned by the publisher; use beyond scientific fair use has to be
         agreed with their owners
"""
TOP = "food-101"
LISTS: dict[Split, str] = {"train": f"{TOP}/meta/train.json", "test": f"{TOP}/meta/test.json"}


def read(raw: Path) -> list[Listed]:
    """The official splits: a list of images a class; classes are numbered from 0 by name."""
    lists = {split: read_json(raw / path) for split, path in LISTS.items()}
    for split, images in lists.items():
        if not _is_list_of_images(images):
            raise UserError(
                f"list {str(raw / LISTS[split])!r} is not of the form class: [image, ...]; delete it and "
                "run again with the published archive in place."
            )
    numbers = {name: number for number, name in enumerate(sorted({*lists["train"], *lists["test"]}))}
    return [
        Listed(split, numbers[name], name, f"{TOP}/images/{image}.jpg")
        for split, images in lists.items()
        for name in images
        for image in images[name]
    ]


def _is_list_of_images(images: object) -> bool:
    return isinstance(images, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in images.values()
    )


SET = Published(
    name="food101",
    downloads=(
        Download(
            "food-101.tar.gz",
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "85eeb15f3717b99a5da872d97d918f87",
            (f"{TOP}/images", *LISTS.values()),
        ),
    ),
    counts={"train": 75750, "test": 25250},
    read=read,
)

if __name__ == "__main__":
    sys.exit(run_script(ABOUT, lambda _: SET))
