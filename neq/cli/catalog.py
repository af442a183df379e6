"""`neq networks` and `neq datasets`: what there is by name."""

from __future__ import annotations

from glob import iglob
from itertools import islice
from pathlib import Path

from rich.table import Table

from neq.cli.console import Console
from neq.config import DatasetEntry, datasets, networks
from neq.config.places import data_folder
from neq.errors import UserError


def command(arguments: list[str]) -> int:
    """Prints the networks or the data sets; gives the exit code.

    Args:
        arguments: "networks" or "datasets" alone.
    """
    if len(arguments) > 1:
        raise UserError(f"neq {arguments[0]} takes no arguments, here {arguments[1]!r}")
    Console().print(_networks() if arguments[0] == "networks" else _datasets())
    return 0


def _networks() -> Table:
    table = Table("network", "input (px)", "conv weights", "start")
    for name, entry in networks().items():
        start = "pretrained" if entry.pretrained else "random"
        table.add_row(name, str(entry.input_size), f"{entry.conv_weights:,}", start)
    return table


# How a data set comes to be there.
_KINDS = {"builtin": "built in", "download": "downloaded", "manual": "put there by hand", "own": "your files"}
_OWN = {"image_folder": "--root FOLDER", "npz": "--dataset npz:FILE"}


def _datasets() -> Table:
    folder = data_folder(None)
    table = Table("data set", "kind", "classes", "looked for as", "present")
    table.caption = f"looked for in {folder}, or in --root FOLDER"
    for name, entry in datasets().items():
        classes = "as in the data" if entry.classes is None else str(entry.classes)
        place, present = _OWN.get(name, ""), ""
        if entry.kind == "builtin":
            present = "yes"
        elif entry.needs:
            place, present = _place(folder, name, entry)
        names = ", ".join((name, *entry.aliases))
        table.add_row(names, _KINDS[entry.kind], classes, place, present)
    return table


def _place(folder: Path, name: str, entry: DatasetEntry) -> tuple[str, str]:
    """Where a data set is looked for, and whether it is there: as image folders, or as it is published."""
    if any(path.is_dir() for path in (folder / name / "train").glob("*")):
        return f"{name}/train", "yes, as image folders"
    found = [
        sum(1 for _ in islice(iglob(pattern, root_dir=folder), count))
        for pattern, count in entry.needs.items()
    ]
    tops = dict.fromkeys(pattern.partition("/")[0] for pattern in entry.needs)
    place = ", ".join(tops)
    if found == list(entry.needs.values()):
        return place, "yes"
    return place, "in part" if any(found) else "no"
