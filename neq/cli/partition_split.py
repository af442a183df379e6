"""`neq partition split`: a branched network as a file for each of two devices, and a manifest."""

from __future__ import annotations

from pathlib import Path

from neq.cli.parsing import Parser, count
from neq.partition.model import SIDES
from neq.utils.errors import UserError


def command(arguments: list[str]) -> int:
    """Writes a split network; returns the exit code.

    Args:
        arguments: "split", then a network and options.
    """
    options = _parser().parse_args(arguments[1:])
    output: Path = options.output.expanduser()
    if output.is_file():
        raise UserError(f"--output {output} is a file; give a folder")
    if not options.force and output.is_dir() and any(output.iterdir()):
        raise UserError(f"--output {output} holds something; give another folder, or --force")
    if options.image_size is not None and not 8 <= options.image_size <= SIDES:
        raise UserError(f"--image-size {options.image_size} is not allowed: 8 to {SIDES} pixels")
    from neq.partition.deploy import FILES, MANIFEST, split, write_split
    from neq.partition.opening import open_network
    from neq.utils.console import Console

    network, classes, images = open_network(options.network, options.image_size)
    manifest, contents = split(network, classes, images)
    write_split(output, manifest, contents)
    console = Console(highlight=False)
    for rank, (name, content) in enumerate(zip(FILES, contents, strict=True)):
        console.lines(f"{output / name}: {len(content) / 2**20:.2f} MiB, for device {rank}")
    console.lines(
        f"{output / MANIFEST}: for both, {manifest.digest[:12]}",
        f"run it: neq partition run {output} --rank 0 (or 1) --address HOST:PORT of device 0",
    )
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="neq partition split",
        description="Write a branched network as a file for each of two devices (the stem, its branch, and "
        "for device 0 the head; batch norms folded) and a manifest with their hashes. Each device needs the "
        "manifest and its own file. A network by name has random weights: for its latency.",
    )
    add = parser.add_argument
    add("network", metavar="RUN_DIR|MODEL",
        help="folder of a run, a published network's name, or a model's .json file")  # fmt: skip
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the files")
    add("--image-size", type=count, metavar="N", help="pixels a side (default: the run's, or the model's)")
    add("--force", action="store_true", help="replace what the folder holds of a split")
    return parser
