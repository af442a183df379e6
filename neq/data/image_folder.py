"""Image folders: one folder for each class.

Three layouts are read:
    ROOT/train/CLASS/*, ROOT/test/CLASS/* and optionally ROOT/val (valid, validation) /CLASS/*
    ROOT/train/CLASS/*, ROOT/val/CLASS/*: val is the test split, as in ImageNet and the published NEq code
    ROOT/CLASS/*: the test split is cut from it by `neq.data.splits`
"""

from __future__ import annotations

import os
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from neq.config.paths import data_folder
from neq.data.sources import Source, Split, source_of_files
from neq.utils.errors import UserError

_VALIDATION_NAMES = ("val", "valid", "validation")
_SPLIT_NAMES = ("train", "test", *_VALIDATION_NAMES)
_LAYOUTS = "ROOT/train/CLASS/* with ROOT/test/CLASS/* or ROOT/val/CLASS/*, or ROOT/CLASS/*"


def open_image_folder(root: str | None) -> Source:
    """List the images of a folder; they are decoded when they are needed.

    Args:
        root: the folder; `~` is expanded.

    Raises:
        UserError: the folder is missing or has another layout, a class is empty, or the classes of the splits
            differ.
    """
    if root is None:
        raise UserError("dataset image_folder needs a folder; set root to the folder of the images.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"root {root!r} is not a folder; give the folder of the images, with {_LAYOUTS}")
    splits, notes = _layout(folder)
    classes = _class_names(folder, splits)
    found = {
        split: [(file, label) for label, name in enumerate(classes) for file in _class_files(path / name)]
        for split, path in splits.items()
    }
    return source_of_files(classes, found, folder, notes)


def open_prepared(name: str, root: str | None) -> Source | None:
    """A data set prepared as image folders at ROOT/NAME or ROOT itself; None if there are none.

    Args:
        name: of the data set.
        root: the data folder, `~` is expanded; None: that of all data sets.
    """
    folder = data_folder(root)
    for place in (folder / name, *([folder] if root is not None else [])):
        if (place / "train").is_dir() and _folders(place / "train"):
            return open_image_folder(str(place))
    return None


def _layout(folder: Path) -> tuple[dict[Split, Path], tuple[str, ...]]:
    """The folder of each split, and notes; only `train` if the folder holds the classes itself."""
    names = _folders(folder)
    if "train" not in names or not _folders(folder / "train"):
        # A class may be called "train", but a folder that holds only splits has no classes.
        if set(names) <= set(_SPLIT_NAMES):
            raise UserError(f"folder {str(folder)!r} has no class folders; arrange it as {_LAYOUTS}")
        return {"train": folder}, ()
    validation = [name for name in _VALIDATION_NAMES if name in names]
    if len(validation) > 1:
        raise UserError(
            f"folder {str(folder)!r} has {' and '.join(validation)}; one validation folder is allowed; "
            "remove or rename the others."
        )
    splits: dict[Split, Path] = {"train": folder / "train"}
    if "test" in names:
        if validation:
            splits["validation"] = folder / validation[0]
        splits["test"] = folder / "test"
        return splits, ()
    if not validation:
        raise UserError(
            f"folder {str(folder)!r} has train but neither test nor val; add one of them, or give train's "
            "own folder as root"
        )
    splits["test"] = folder / validation[0]
    return splits, (f"{validation[0]} is used as the test split, as there is no test folder",)


def _class_names(folder: Path, splits: dict[Split, Path]) -> tuple[str, ...]:
    """The sorted class names of train; every split must have the same."""
    classes = _folders(splits["train"])
    for path in splits.values():
        different = sorted(set(classes) ^ set(_folders(path)))
        if different:
            verb, other = ("lacks", "has") if different[0] in classes else ("has", "lacks")
            raise UserError(
                f"folder {str(path)!r} {verb} class {different[0]!r}, which train {other}; every split needs "
                "the same classes; add images of it or remove the class"
            )
    return tuple(classes)


def _class_files(folder: Path) -> list[str]:
    """The images of one class folder, sorted by name."""
    nested = _folders(folder)
    if nested:
        raise UserError(
            f"class folder {str(folder)!r} holds folders ({nested[0]!r}); arrange the images as {_LAYOUTS}"
        )
    files = [str(folder / name) for name in _names(folder) if name.lower().endswith(IMG_EXTENSIONS)]
    if not files:
        raise UserError(
            f"class folder {str(folder)!r} has no image; allowed: {' '.join(IMG_EXTENSIONS)}; "
            "add images or remove the folder."
        )
    return files


def _names(folder: Path) -> list[str]:
    """The visible names in a folder, sorted, so that the order does not depend on the file system."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UserError(f"folder {str(folder)!r} cannot be listed ({error.strerror}); correct it.") from error


def _folders(folder: Path) -> list[str]:
    return [name for name in _names(folder) if (folder / name).is_dir()]
