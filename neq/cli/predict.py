"""`neq predict`: the classes of photos, by a run's best network or a copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from neq.cli.parsing import Parser, check_new_file, count
from neq.utils.errors import UserError

if TYPE_CHECKING:
    from neq.results.prediction import Prediction
    from neq.utils.console import Console


def command(arguments: list[str]) -> int:
    """Classifies photos.

    Args:
        arguments: "predict", then the folder of a run, images and options.

    Returns:
        The exit code: 1 if a photo cannot be read.
    """
    options = _parser().parse_args(arguments[1:])
    output: Path | None = options.output
    if output is not None:
        if output.suffix != ".csv":
            raise UserError(f"--output {output} is not a name for a table; let it end in .csv")
        check_new_file("--output", output, options.force)
    from neq.results.best_network import load_best, network_folder
    from neq.results.frame import write_csv
    from neq.results.onnx_file import check_packages, onnx_outputs
    from neq.results.prediction import image_files, predict, table, torch_outputs
    from neq.utils.console import Console
    from neq.utils.device import pick_device

    files = image_files(path.expanduser() for path in options.images)
    if options.onnx:
        check_packages()
    best = load_best(network_folder(options.network.expanduser()))
    outputs = onnx_outputs(best) if options.onnx else torch_outputs(best, pick_device(options.device))
    console, unreadable = Console(), list[str]()
    found = _shown(predict(best, files, options.top, outputs), console, unreadable)
    if output is None:
        for _ in found:
            pass
    else:
        rows = table(found)
        try:
            write_csv(rows, output)
        except OSError as error:
            raise UserError(f"--output {output} cannot be written ({error.strerror})") from error
        console.lines(f"{output}: {len(files) - len(unreadable)} images")
    if unreadable:
        console.warn(f"{len(unreadable)} of {len(files)} images cannot be read: {', '.join(unreadable[:3])}"
                     + (", ..." if len(unreadable) > 3 else ""))  # fmt: skip
    return 1 if unreadable else 0


def _shown(found: Iterator[Prediction], console: Console, unreadable: list[str]) -> Iterator[Prediction]:
    """The predictions, each printed as it comes; the names of those that cannot be read are added."""
    for prediction in found:
        console.lines(str(prediction), style="yellow" if prediction.error else None)
        if prediction.error:
            unreadable.append(prediction.image)
        yield prediction


def _parser() -> Parser:
    parser = Parser(
        prog="neq predict",
        description="Classify photos by the best network of a run, in the preprocessing of its evaluation: a "
        "line a photo with its most probable classes. A photo that cannot be read is named and skipped; "
        "the exit code is then 1.",
    )
    add = parser.add_argument
    add("network", type=Path, metavar="RUN_DIR", help="folder of a run, or of a copy of its network")
    add("images", type=Path, nargs="+", metavar="IMAGE|FOLDER", help="photos, and folders of photos")
    add("--top", type=count, default=5, metavar="N", help="classes of each photo (default: 5)")
    add("--output", type=lambda text: Path(text).expanduser(), metavar="FILE",
        help="a .csv file: image, rank, class, probability")  # fmt: skip
    add("--force", action="store_true", help="replace a file that is there")
    add("--onnx", action="store_true", help="compute with onnxruntime, in fp32 on the CPU, in place of torch")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of torch (default: auto)")
    return parser
