"""Image folders: one folder for each class.

Three layouts are read:
    ROOT/train/CLASS/*, ROOT/test/CLASS/* and optionally ROOT/val/CLASS/*
    ROOT/train/CLASS/*, ROOT/val/CLASS/*: val is the test split, as in ImageNet and the published NEq code
    ROOT/CLASS/*: the test split is cut from it by `neq.data.splits`

Splits may also be called training, testing, valid and validation, in any case. Folders in a class folder
belong to the class.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from neq.config.paths import data_folder
from neq.data.sources import Source, Split, source_of_files
from neq.utils.errors import UserError, shown
from neq.utils.images import endings

_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_LAYOUTS = "ROOT/train/CLASS/* with ROOT/test/CLASS/* or ROOT/val/CLASS/*, or ROOT/CLASS/*"
_HEIC = (".heic", ".heif", ".hif")
_NAMED = 3


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
    found: dict[Split, list[tuple[str, int]]] = {}
    left_out: list[str] = []
    nested: list[str] = []
    for split, path in splits.items():
        found[split] = []
        for label, name in enumerate(classes):
            images, others, inner = _class_files(path / name)
            found[split] += [(file, label) for file in images]
            left_out += others
            nested += inner
    if nested:
        example = Path(nested[0])
        notes += (f"{shown(str(example.relative_to(folder)))} is read as class {example.parent.name!r}",)
    if left_out:
        notes += (f"left out, no image by its ending: {_described(left_out, folder)}",)
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
    splits: dict[Split, Path] = {}
    for split, allowed in _SPLIT_NAMES.items():
        of_split = [name for name in names if name.lower() in allowed]
        if len(of_split) > 1:
            raise UserError(
                f"folder {str(folder)!r} has {' and '.join(of_split)}; one {split} folder is allowed; "
                "remove or rename the others."
            )
        if of_split:
            splits[split] = folder / of_split[0]
    if "train" not in splits or not _folders(splits["train"]):
        # A class may be called "train", but a folder that holds only splits has no classes.
        if len(splits) == len(names):
            raise UserError(f"folder {str(folder)!r} has no class folders; arrange it as {_LAYOUTS}")
        return {"train": folder}, ()
    if "test" in splits:
        return splits, ()
    if "validation" not in splits:
        raise UserError(
            f"folder {str(folder)!r} has {splits['train'].name} but neither test nor val; add one of them, "
            "or give the training folder as root"
        )
    splits["test"] = splits.pop("validation")
    return splits, (f"{splits['test'].name} is used as the test split, as there is no test folder",)


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


def _class_files(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """The images of one class folder and of the folders in it, its other files, and these folders."""
    images, others, inner = list_images(folder)
    if not images:
        raise UserError(
            f"class folder {str(folder)!r} has no image"
            + (f" among {_described(others, folder)}" if others else "")
            + f"; allowed: {' '.join(endings())}; add images or remove the folder."
        )
    return images, others, inner


def list_images(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """The images of a folder and of the folders in it, by their endings, its other files, and these folders.

    Raises:
        UserError: a folder cannot be listed.
    """
    images: list[str] = []
    others: list[str] = []
    inner: list[str] = []
    visited: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_unlisted, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link may lead back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner += [os.path.join(place, name) for name in folders]
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(place, name)
            (images if _is_image(path) else others).append(path)
    return images, others, inner


def _is_image(path: str) -> bool:
    """Whether a file has the ending of an image; reading a pipe or device would never end."""
    return path.lower().endswith(endings()) and (os.path.isfile(path) or not os.path.exists(path))


def _described(files: list[str], folder: Path) -> str:
    """A few words about files that are no images: how many, the first of them, and what would read them."""
    named = ", ".join(shown(os.path.relpath(file, folder)) for file in files[:_NAMED])
    more = ", ..." if len(files) > _NAMED else ""
    heic = any(file.lower().endswith(_HEIC) for file in files)
    return f"{len(files)} file(s) ({named}{more})" + (
        "; .heic needs pillow-heif: pip install 'neq[heic]'" if heic else ""
    )


def _unlisted(error: OSError) -> NoReturn:
    raise UserError(f"folder {error.filename!r} cannot be listed ({error.strerror}); correct it.") from error


def _folders(folder: Path) -> list[str]:
    """The visible folders in a folder, sorted, so that the order does not depend on the file system."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError as error:
        _unlisted(error)
