"""Downloads Oxford-IIIT Pets and splits it officially; --help tells how."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.preparing import Download, Listed, Published, Split
from neq.preparing.lists import rows
from neq.utils.errors import UserError

ABOUT = """\
Oxford-IIIT Pets: 7,349 photos of 37 breeds of cats and dogs, official train (trainval) and test splits.

source   https://www.robots.ox.ac.uk/~vgg/data/pets/ (811 MB)
licence  CC BY-SA 4.0; the photos belong to who took them
"""
URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
LISTS: dict[Split, str] = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}


def read(raw: Path) -> list[Listed]:
    """The official splits: rows of image, class from 1, species, breed within the species.

    The class is the number in the list. The name before the image's number is only for the reader:
    american_bulldog and american_pit_bull_terrier must not merge, nor upper and lower case.
    """
    listed = []
    for split, path in LISTS.items():
        for image, number, _, _ in rows(raw / path, 4):
            if not number.isdecimal():
                raise UserError(
                    f"list {str(raw / path)!r} gives image {image!r} the class {number!r}; a number is "
                    "needed; delete the list and run again with the published archive in place."
                )
            listed.append(Listed(split, int(number), image.rsplit("_", 1)[0], f"images/{image}.jpg"))
    return listed


SET = Published(
    name="pets",
    downloads=(
        Download("images.tar.gz", f"{URL}images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", ("images",)),
        Download(
            "annotations.tar.gz",
            f"{URL}annotations.tar.gz",
            "95a8c909bbe2e81eed6a22bccdf3f68f",
            tuple(LISTS.values()),
        ),
    ),
    counts={"train": 3680, "test": 3669},
    read=read,
)

if __name__ == "__main__":
    sys.exit(run_script(ABOUT, lambda _: SET))
