"""Oxford-IIIT Pet: 7,349 photos of 37 breeds of cats and dogs, in official trainval and test splits."""

from __future__ import annotations

from pathlib import Path

from neq.data.published.by_name import open_published
from neq.data.published.download import Download
from neq.data.published.lists import rows
from neq.data.published.published_set import ListedImage, PublishedSet
from neq.data.sources import Source, Split
from neq.utils.errors import UserError

_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
_LISTS: dict[Split, str] = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}


def open_pets(root: str | None) -> Source:
    """The breeds from ROOT/pets (image folders) or ROOT/oxford-iiit-pet (as torchvision unpacks them).

    Args:
        root: the data folder; None: that of all data sets.
    """
    return open_published(PETS, root)


def _read(raw: Path) -> list[ListedImage]:
    """The official splits: rows of image, class from 1, species, breed within the species.

    The class is the number in the list; the name, taken from the file's name, is only for the reader:
    american_bulldog and american_pit_bull_terrier must not merge.
    """
    listed = []
    for split, path in _LISTS.items():
        for image, number, _, _ in rows(raw / path, 4):
            if not number.isdecimal():
                raise UserError(
                    f"list {str(raw / path)!r} gives image {image!r} the class {number!r}; a number is "
                    "needed; delete the list and run again to get the published one"
                )
            listed.append(ListedImage(split, int(number), image.rsplit("_", 1)[0], f"images/{image}.jpg"))
    return listed


def _display_name(name: str) -> str:
    """`american_bulldog` as American Bulldog, as torchvision names the breed."""
    return " ".join(part.title() for part in name.split("_"))


PETS = PublishedSet(
    name="pets",
    script="pets",
    page=_PAGE,
    downloads=(
        Download(
            "images.tar.gz", f"{_PAGE}data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", ("images",)
        ),
        Download(
            "annotations.tar.gz",
            f"{_PAGE}data/annotations.tar.gz",
            "95a8c909bbe2e81eed6a22bccdf3f68f",
            tuple(_LISTS.values()),
        ),
    ),
    counts={"train": 3680, "test": 3669},
    read=_read,
    folder="oxford-iiit-pet",
    display_name=_display_name,
)
