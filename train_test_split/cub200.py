"""Downloads Caltech-UCSD Birds 200-2011 and splits it officially; --help tells how."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.preparing import Download, Listed, Published
from neq.preparing.lists import rows
from neq.utils.errors import UserError

ABOUT = """\
Caltech-UCSD Birds 200-2011: 11,788 photos of 200 birds, official train and test splits.

source   https://www.vision.caltech.edu/datasets/cub_200_2011/ (1.15 GB)
licence  none stated with the archive; photos from the web, which belong to who took them
"""
TOP = "CUB_200_2011"
LISTS = ("images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt")


def read(raw: Path) -> list[Listed]:
    """The official splits: four lists, joined by the ids of images and classes."""
    names, classes, labels, trained = (dict(rows(raw / TOP / name, 2)) for name in LISTS)
    if not names.keys() == labels.keys() == trained.keys():
        raise UserError(
            f"the lists in {str(raw / TOP)!r} have {len(names)}, {len(labels)} and {len(trained)} images; "
            f"{LISTS[0]}, {LISTS[2]} and {LISTS[3]} must have the same; unpack the published archive again."
        )
    for image, label in labels.items():
        if label not in classes or not label.isdecimal() or trained[image] not in ("0", "1"):
            raise UserError(
                f"image {image} has class {label!r} and split {trained[image]!r} in the lists of "
                f"{str(raw / TOP)!r}; a class of {LISTS[1]}, and 0 or 1, are allowed; unpack the published "
                "archive again."
            )
    return [
        Listed(
            "train" if trained[image] == "1" else "test",
            int(labels[image]),
            classes[labels[image]].removeprefix(f"{int(labels[image]):03d}."),
            f"{TOP}/images/{path}",
        )
        for image, path in names.items()
    ]


SET = Published(
    name="cub200",
    downloads=(
        Download(
            "CUB_200_2011.tgz",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "97eceeb196236b17998738112f37df78",
            (f"{TOP}/images", *(f"{TOP}/{name}" for name in LISTS)),
        ),
    ),
    counts={"train": 5994, "test": 5794},
    read=read,
)

if __name__ == "__main__":
    sys.exit(run_script(ABOUT, lambda _: SET))
