"""Caltech-UCSD Birds-200-2011: 5,994 and 5,794 photos of 200 classes, put in place by hand.

Read as image folders, or as CUB_200_2011.tgz unpacks, by its official lists.
"""

from __future__ import annotations

from pathlib import Path

from neq.config.paths import data_folder
from neq.data.image_folder import open_prepared
from neq.data.sources import Source, Split, file_size, source_of_files
from neq.utils.errors import UserError

_FOLDER = "CUB_200_2011"
_PAGE = "https://data.caltech.edu/records/65de6-vp158"


def open_cub(root: str | None) -> Source:
    """The birds, from image folders or from CUB_200_2011/ under the root (or at it).

    Args:
        root: the data folder; none: that of all data sets.

    Raises:
        UserError: they are not there, or not whole.
    """
    prepared = open_prepared("cub", root)
    if prepared is not None:
        return prepared
    base = data_folder(root)
    for place in (base / _FOLDER, base):
        if (place / "train_test_split.txt").is_file():
            return _of_lists(place)
    raise UserError(
        f"data set cub is not in {str(base)!r}; put {_FOLDER}.tgz from {_PAGE} there, unpacked, "
        "or image folders made by train_test_split/cub200.py, or give their folder with --root."
    )


def _of_lists(folder: Path) -> Source:
    """The original layout."""
    try:
        files, labels, training, names = (
            dict(_pair(line) for line in (folder / name).read_text(encoding="utf-8").splitlines())
            for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
        )
        numbers = {number: label for label, number in enumerate(sorted(names, key=int))}
        splits: dict[Split, list[tuple[str, int]]] = {"train": [], "test": []}
        for image, file in files.items():
            split: Split = "train" if training[image] == "1" else "test"
            splits[split].append((str(folder / "images" / file), numbers[labels[image]]))
    except (OSError, ValueError, KeyError) as error:
        raise _incomplete(folder, f"its lists cannot be read: {error}") from error
    missing = [file for part in splits.values() for file, _ in part if file_size(file) < 0]
    if missing:
        raise _incomplete(
            folder, f"{len(missing)} of {len(files)} images are missing, the first {missing[0]}"
        )
    return source_of_files([names[number] for number in numbers], splits)


def _pair(line: str) -> tuple[str, str]:
    """`12 001.Albatross/x.jpg` as its number and its rest."""
    number, rest = line.split(maxsplit=1)
    return number, rest.strip()


def _incomplete(folder: Path, reason: str) -> UserError:
    return UserError(f"data set cub in {str(folder)!r} is incomplete ({reason}); unpack {_FOLDER}.tgz again.")
