"""`neq quantize`: a float network as an int8 network, in a file that trains and runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from neq.cli.parsing import Parser, check_new_file, count
from neq.config import Options, find_config, parse_flags, read_yaml, resolve
from neq.utils.errors import UserError

if TYPE_CHECKING:
    from neq.int8.float_start import FloatStart
    from neq.utils.console import Console

ENDING = ".safetensors"


def command(arguments: list[str]) -> int:
    """Quantizes a network; returns the exit code.

    Args:
        arguments: "quantize", then the network, options, and flags as of `neq train`.
    """
    own, rest = _parser().parse_known_args(arguments[1:])
    options = parse_flags(rest, "neq quantize")
    path: Path = own.output.expanduser()
    if path.suffix != ENDING:
        raise UserError(f"--output {path} is not a name for an int8 network; let it end in {ENDING}")
    check_new_file("--output", path, own.force)
    if options.dry_run or options.overwrite:
        raise UserError("--dry-run and --overwrite are not allowed; --force replaces the file")
    from neq.int8 import quantize, write_int8
    from neq.utils.console import Console

    console = Console(highlight=False)
    start = _start(own.network, options, console)
    found = quantize(start.network, start.images("train", own.images), start.made_for, start.classes)
    try:
        write_int8(path, found.network)
    except OSError as error:
        raise UserError(f"--output {path} cannot be written ({error.strerror})") from error
    tried = Table("calibration", "cosine of outputs", "same class %")
    for method, each in found.agreements.items():
        chosen = " (chosen)" if method == found.method else ""
        tried.add_row(f"{method}{chosen}", f"{each.cosine:.4f}", f"{100 * each.same:.1f}")
    console.print(tried)
    size = f"{path.stat().st_size / 1024:,.0f} KiB"
    console.lines(f"{path}: {len(found.network.convs)} int8 convolutions, {size}")
    if start.classes:
        before, after = start.accuracies(found.network, own.test_images)
        console.lines(f"top-1 of test images: {before:.1f} % in floating point, {after:.1f} % in int8")
    console.lines(f"train it: neq train --net_name int8:{path}")
    return 0


def _start(named: str, options: Options, console: Console) -> FloatStart:
    """The network of a run's folder, or of a name."""
    from neq.int8.float_start import of_name, of_run

    folder, given = Path(named).expanduser(), options.overrides
    if folder.is_dir():
        if options.names_config or given.keys() - {"root"}:
            raise UserError(
                f"{folder} is a run, which has its settings; --root alone is allowed, for images that moved"
            )
        return of_run(folder, given.get("root"))
    if "dataset" not in given:
        raise UserError("--dataset is missing, whose images are calibrated on; as in --dataset flowers")
    resolved = resolve(read_yaml(find_config(options.config_file)), {**given, "net_name": named})
    for line in resolved.notes:
        console.note(line)
    return of_name(resolved.config)


def _parser() -> Parser:
    parser = Parser(
        prog="neq quantize",
        usage="neq quantize RUN_DIR|NET_NAME --output FILE [options]",
        description="Quantize a float network to int8: the best network of a run, or one by name on the "
        "images of --dataset. Further flags are those of neq train.",
    )
    add = parser.add_argument
    add("network", metavar="RUN_DIR|NET_NAME", help="folder of a run, or a network by name")
    add("--output", type=Path, required=True, metavar="FILE", help=f"the file to write, *{ENDING}")
    add("--images", type=count, default=256, metavar="N",
        help="training images to calibrate on; their labels are not read (default: 256)")  # fmt: skip
    add("--test-images", type=count, default=1000, metavar="N",
        help="test images that accuracies are measured on (default: 1000)")  # fmt: skip
    add("--force", action="store_true", help="replace a file that is there")
    return parser
