"""`neq networks` and `neq datasets`: the networks and data sets by name."""

from __future__ import annotations

from glob import iglob
from itertools import islice
from pathlib import Path

from rich import box
from rich.table import Table

from neq.config import PRE_TRAINED, DatasetEntry, datasets, network, networks
from neq.config.paths import data_folder
from neq.utils.console import Console
from neq.utils.errors import UserError


def command(arguments: list[str]) -> int:
    """Prints the networks or the data sets; returns the exit code.

    Args:
        arguments: "networks", then the names of some or none, or "datasets" alone.
    """
    what, *names = arguments
    for name in names:
        if name.startswith("-") or what == "datasets":
            taken = "names of networks alone" if what == "networks" else "no arguments"
            raise UserError(f"neq {what} takes {taken}, here {name!r}")
    if what == "datasets":
        Console().print(_datasets())
        return 0
    console = Console(width=WIDEST)  # names stay whole, in a pipe too; without long ones it takes 80
    console.print(_networks(names))
    if not names:
        console.print(LEGEND, highlight=False)
    return 0


WIDEST = 200
LEGEND = f"""
parameters: of all selectable neurons, which a ratio is a share of
MACs (M):   millions of multiply-accumulates of their layers, for one image
*:          also as {PRE_TRAINED}NAME, with its published ImageNet weights
others:     torchvision:NAME and timm:NAME, any classification network of these;
            neq networks NAME ... lists some alone, also of these"""


def _networks(names: list[str]) -> Table:
    """One row per network; without names, all that have a name of their own, each graph once."""
    from neq.experiment.network import outline

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("network")
    for heading in ("px", "convs", "neurons", "conv\nparameters", "parameters", "MACs (M)"):
        table.add_column(heading, justify="right")
    table.add_column("start")
    for name in names or [name for name, entry in networks().items() if not entry.pretrained]:
        entry, neurons = network(name), outline(name)
        convs = [layer for layer in neurons.layers if layer.kind.is_conv]
        numbers = (
            entry.input_size,
            len(convs),
            len(neurons),
            sum(layer.neurons * layer.parameters for layer in convs),
            neurons.total_parameters,
        )
        start = "pretrained" if entry.pretrained else "random"
        both = not names and PRE_TRAINED + name in networks()
        cells = (*(f"{number:,}" for number in numbers), f"{neurons.total_macs / 1e6:,.1f}")
        table.add_row(name, *cells, f"{start} *" if both else start)
    return table


# How a data set comes to be there.
_KINDS = {"builtin": "built in", "download": "downloaded", "manual": "put there by hand", "own": "your files"}
_OWN = {"image_folder": "--root FOLDER", "cifar10c": "--root FOLDER", "npz": "--dataset npz:FILE"}


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
    """Where a data set is searched, and whether it is there, as image folders or as published."""
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
