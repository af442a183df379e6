"""`neq partition show`: what a network costs, its branches and where they synchronize."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from neq.cli.parsing import Parser, count
from neq.partition import PUBLISHED, Model, published, read_model
from neq.partition.costs import (
    CLASSES,
    branch_macs,
    head_macs,
    macs,
    parameters,
    sent,
    sent_bytes,
    stem_macs,
)
from neq.partition.model import SIDES
from neq.utils.console import Console
from neq.utils.errors import UserError, unknown_name


def command(arguments: list[str]) -> int:
    """Prints a network; returns the exit code.

    Args:
        arguments: "show", then a network and options.
    """
    options = _parser().parse_args(arguments[1:])
    model = named_model(options.model)
    if options.image_size is not None:
        if not 8 <= options.image_size <= SIDES:
            raise UserError(f"--image-size {options.image_size} is not allowed: 8 to {SIDES} pixels")
        model = model.at(options.image_size)
    size, classes = options.image_size or model.image_size, options.classes
    console = Console()
    syncs = "no sync" if model.sync is None else "syncs " + " ".join(model.sync)
    console.lines(
        f"{model.name}: {syncs}, {model.act}, {size} px, {classes} classes",
        f"{parameters(model, classes) / 1e6:.3f} M parameters, {macs(model, classes) / 1e6:.3f} M MACs: stem "
        f"{stem_macs(model) / 1e6:.3f}, head {head_macs(model, classes) / 1e6:.3f}",
    )
    console.print(_stages(model))
    if model.sync is not None:
        console.print(_syncs(model))
    return 0


def named_model(name: str) -> Model:
    """The model of a name of SyncNAS, or in a file, with or without `branched:` before it.

    Raises:
        UserError: there is none.
    """
    plain = name.removeprefix("branched:")
    if plain in PUBLISHED:
        return published(plain)
    if not plain.endswith(".json") and not Path(plain).is_file():
        raise unknown_name("network", plain, PUBLISHED, "Or give the path of a .json file.")
    return read_model(plain)


def _stages(model: Model) -> Table:
    """A row a stage: its map, its blocks' widths by branch, and its MACs."""
    table = Table("stage", "px", "kernel", "in > out", title=None)
    for branch in range(model.branches):
        table.add_column("widths" if model.sync is None else f"widths, branch {branch}")
    table.add_column("sync")
    for number, stage in enumerate(model.stages):
        first, last = stage[0][0], stage[0][-1]
        kernels = dict.fromkeys(str(block.kernel) for block in stage[0])
        stride = f" s{first.stride}" if first.stride > 1 else ""
        table.add_row(
            str(number),
            str(first.side),
            f"{','.join(kernels)}{stride}",
            f"{first.in_channels} > {last.out_channels}",
            *(" ".join(str(block.expanded) for block in blocks) for blocks in stage),
            "" if model.sync is None else model.sync[number],
        )
    return table


def _syncs(model: Model) -> Table:
    """A row a segment: the MACs of each branch, and what it sends at the sync behind it."""
    table = Table("stages", "MMACs, branch 0", "branch 1", "1 / 0", "sync", "sent by each", "KB")
    for segment in model.segments:
        costs = [branch_macs(model, branch, segment) for branch in (0, 1)]
        shapes = dict.fromkeys("x".join(map(str, sent(model, segment, branch))) for branch in (0, 1))
        kilobytes = dict.fromkeys(f"{sent_bytes(model, segment, branch) / 1000:,.1f}" for branch in (0, 1))
        table.add_row(
            f"{segment.first} - {segment.stop - 1}",
            *(f"{cost / 1e6:.3f}" for cost in costs),
            f"{costs[1] / costs[0]:.2f}",
            segment.sync,
            ", ".join(shapes),
            ", ".join(kilobytes),
        )
    totals = [branch_macs(model, branch) for branch in (0, 1)]
    table.add_row("all", *(f"{total / 1e6:.3f}" for total in totals), f"{totals[1] / totals[0]:.2f}")
    return table


def _parser() -> Parser:
    parser = Parser(
        prog="neq partition show",
        description="Print the parameters, multiply-accumulates, branches and syncs of a network.",
    )
    parser.add_argument("model", metavar="MODEL", help=f"{', '.join(PUBLISHED)}, or a model's .json file")
    parser.add_argument(
        "--image-size", type=count, metavar="S", help="pixels a side (default: the model's own)"
    )
    parser.add_argument("--classes", type=count, default=CLASSES, metavar="N", help="default: 1000")
    return parser
