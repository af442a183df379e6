"""`neq export`: the best network of a run as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from neq.cli.parsing import Parser, check_new_file
from neq.utils.errors import UserError


def command(arguments: list[str]) -> int:
    """Exports a network; returns the exit code.

    Args:
        arguments: "export", then the folder of a run and where the file goes.
    """
    parser = Parser(
        prog="neq export",
        description="Write the best network of a run as an ONNX file. It takes normalized images "
        "[batch, 3, S, S] and gives logits [batch, classes]; class names and normalization are among its "
        "properties. Its outputs are compared with torch's; it is written only where they agree.",
    )
    parser.add_argument("folder", metavar="RUN_DIR", help="folder of a run, finished or not")
    parser.add_argument("--onnx", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--image-size", type=int, metavar="S", help="pixels a side (default: the run's own)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    options = parser.parse_args(arguments[1:])
    folder, path = Path(options.folder).expanduser(), Path(options.onnx).expanduser()
    if options.image_size is not None and not 8 <= options.image_size <= 4096:
        raise UserError(f"--image-size {options.image_size} is not allowed: 8 to 4096 pixels")
    if path.suffix != ".onnx":
        raise UserError(f"--onnx {path} is not a name for an ONNX file; let it end in .onnx")
    check_new_file("--onnx", path, options.force)
    _export(folder, path, options.image_size)
    return 0


def _export(folder: Path, path: Path, image_size: int | None) -> None:
    from neq.results.best_network import load_best
    from neq.results.onnx_file import check_packages, export_onnx
    from neq.runs import load_run
    from neq.utils.console import Console

    check_packages()
    _ = load_run(folder).best_weights  # raises before the network is built
    console = Console()
    best = load_best(folder)
    try:
        done = export_onnx(best, path, image_size)
    except OSError as error:
        raise UserError(f"--onnx {path} cannot be written ({error.strerror})") from error
    kind = f"test images of {best.config.data_provider.dataset}"
    if not done.real:
        kind = "random images: the data set is not at hand"
    console.lines(
        f"{path}: {best.config.net_config.net_name}, {done.file_bytes / 2**20:.1f} MiB, opset {done.opset}",
        f"images [batch, 3, {done.image_size}, {done.image_size}] -> logits [batch, {len(best.classes)}]",
        f"largest difference from torch {done.difference:.2g} (allowed {done.allowed:.2g}), "
        f"on {done.images} {kind}",
    )
