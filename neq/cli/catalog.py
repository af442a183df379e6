"""`neq networks` and `neq datasets`: what there is by name."""

from __future__ import annotations

from rich import box
from rich.table import Table

from neq.cli.console import Console
from neq.config import PRE_TRAINED, datasets, network, networks
from neq.errors import UserError


def command(arguments: list[str]) -> int:
    """Prints the networks or the data sets; gives the exit code.

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
*:          also as {PRE_TRAINED}NAME, with the ImageNet weights of torchvision
others:     torchvision:NAME and timm:NAME, any classification network of these;
            neq networks NAME ... tells of some alone, theirs too"""


def _networks(names: list[str]) -> Table:
    """A row a network; without names, all that have one of their own, each graph once."""
    from neq.cli.network import outline

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("network")
    for heading in ("px", "convs", "neurons", "conv\nparameters", "parameters", "MACs (M)"):
        table.add_column(heading, justify="right")
    table.add_column("start")
    for name in names or [name for name, entry in networks().items() if not entry.pretrained]:
        entry, neurons = network(name), outline(name)
        convs = [layer for layer in neurons.layers if layer.kind == "conv"]
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


def _datasets() -> Table:
    table = Table("data set", "classes", "augmentation")
    for name, entry in datasets().items():
        classes = "as in the folder" if entry.classes is None else str(entry.classes)
        table.add_row(name, classes, entry.augmentation)
    return table
