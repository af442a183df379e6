"""`neq compress`: the best network of a run made smaller, in a folder that trains, exports and predicts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neq.cli.parsing import Parser, count
from neq.config import parse_flags, read_yaml, resolve
from neq.runs import load_run
from neq.runs.layout import BEST_WEIGHTS, CONFIG, IDENTITY
from neq.utils.errors import UserError
from neq.utils.exit_codes import Terminated
from neq.wings.compression import AGREEMENT, DENSE, FORMS, IMPORTANCES, SCOPES

if TYPE_CHECKING:
    from neq.compression.make import Figures
    from neq.utils.console import Console

FINE_TUNE = "--fine-tune"


def command(arguments: list[str]) -> int:
    """Compresses a network; returns the exit code.

    Args:
        arguments: "compress", then a folder and options; behind --fine-tune, flags as of `neq train`.
    """
    given = arguments[1:]
    fine_tune: list[str] | None = None
    if FINE_TUNE in given:
        given, fine_tune = given[: given.index(FINE_TUNE)], given[given.index(FINE_TUNE) + 1 :]
    options = _parser().parse_args(given)
    steps = _steps(options)
    if options.agreement is not None and options.quantize != "mixed":
        raise UserError("--agreement is for --quantize mixed; give them together, or leave it out")
    quantize: dict[str, Any] | None = None if options.quantize is None else {"form": options.quantize}
    if quantize is not None and options.quantize == "mixed":
        quantize["least"] = AGREEMENT if options.agreement is None else options.agreement
    if quantize is not None and fine_tune is not None:
        raise UserError(
            f"--quantize is for what is deployed: give it in a command of its own, for the run of {FINE_TUNE}"
        )
    flags = {} if fine_tune is None else _flags(fine_tune)
    if options.rounds > 1 and (fine_tune is None or not {"prune", "sparsify"} & steps.keys()):
        raise UserError(f"--rounds needs --prune or --sparsify, and {FINE_TUNE} between the rounds")
    if options.rounds > 1 and {"low_rank", "attention", "binarize"} & steps.keys():
        raise UserError("--low-rank, --attention and --binarize are done once; give them without --rounds")
    source, output = options.folder.expanduser(), options.output.expanduser()
    if output.is_file():
        raise UserError(f"--output {output} is a file; give a folder")
    if output.resolve() == source.resolve() or (output / IDENTITY).exists():
        raise UserError(f"--output {output} is a run, or what is compressed; give another folder")
    if fine_tune is not None:
        load_run(source)
        resolve(read_yaml(source / CONFIG), flags)  # a mistake, before anything is written
    from neq.compression.make import part_of
    from neq.utils.console import Console

    console = Console(highlight=False)
    for number in range(1, options.rounds + 1):
        folder = output if number == options.rounds else output.with_name(f"{output.name}-round-{number}")
        _compress(source, folder, part_of(steps, options.rounds), quantize, options.force, console)
        if fine_tune is not None:
            source = _fine_tuned(source, folder, flags, console)
    if fine_tune is None:
        console.lines(f"fine-tune it: neq train --net_name compressed:{output} and flags, or --fine-tune")
    return 0


def _steps(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked for, in the order in which it is done: transform -> its settings."""
    steps: dict[str, Any] = {}
    if options.prune is not None:
        steps["prune"] = {
            "share": options.prune,
            "importance": options.importance,
            "round_to": options.round_to,
        }
    if options.low_rank is not None:
        steps["low_rank"] = {"share": options.low_rank, "dense": options.dense}
    if options.attention is not None:
        kind, _, names = options.attention.partition("@")
        layers = [name for name in names.split(",") if name]
        if not layers:
            raise UserError(f"--attention {options.attention} names no layer; give KIND@LAYER,LAYER")
        steps["attention"] = {"kind": kind, "layers": layers}
    if options.sparsify is not None:
        steps["sparsify"] = {"share": options.sparsify, "scope": options.scope}
    if options.rewind:
        if steps.keys() != {"sparsify"}:
            raise UserError("--rewind is of the weights that --sparsify leaves; give it with that step alone")
        steps["rewind"] = {}
    if options.binarize:
        steps["binarize"] = {}
    if not steps and options.quantize is None:
        raise UserError(
            "nothing to do; give --prune, --low-rank, --attention, --sparsify, --binarize or --quantize"
        )
    return steps


def _flags(fine_tune: Sequence[str]) -> dict[str, Any]:
    options = parse_flags(list(fine_tune), f"neq compress {FINE_TUNE}")
    if options.names_config or options.dry_run or options.overwrite or "net_name" in options.overrides:
        raise UserError(
            f"{FINE_TUNE} starts from the run's own configuration and the compressed network; "
            "give settings alone"
        )
    return dict(options.overrides)


def _compress(
    source: Path,
    folder: Path,
    steps: Mapping[str, Any],
    quantize: Mapping[str, Any] | None,
    force: bool,
    console: Console,
) -> None:
    """Makes one compressed network and prints its figures."""
    from neq.compression.make import make
    from neq.compression.network_folder import ONNX_FILE

    made = make(source, folder, steps, force, quantize)
    if made is None:
        console.note(f"{folder} is made already")
        return
    console.print(_table(made.before, made.after))
    if made.deployment is not None:
        int8 = made.deployment
        console.lines(
            f"{folder / ONNX_FILE}: int8 {int8.types or int8.form}, {len(int8.content) / 2**20:.2f} MiB, "
            f"{len(int8.in_float)} of {int8.layers} layers in floating point, test top-1 {made.top1:.2f} %, "
            f"the class of floating point on {100 * int8.agreement:.1f} % of {int8.compared} training images"
        )
    console.lines(f"{folder}: {(folder / BEST_WEIGHTS).stat().st_size / 2**20:.2f} MiB")


def _fine_tuned(source: Path, folder: Path, flags: Mapping[str, Any], console: Console) -> Path:
    """Trains a compressed network by the configuration of the run that it comes from; the run's folder."""
    from neq.cli.progress import ProgressDisplay
    from neq.cli.train import conclude
    from neq.compression.steps import fine_tuning
    from neq.experiment.run import RUNS, run_training
    from neq.runs import find_run
    from neq.training import stop_on_signals, total_epochs

    resolved = fine_tuning(source, folder, flags)
    for line in resolved.notes:
        console.note(line)
    config = resolved.config
    config = config.model_copy(update={"resume": find_run(config, RUNS).state == "unfinished"})
    try:
        with ProgressDisplay(console, total_epochs(config.run_config)) as display:
            run = run_training(config, trackers=(display,), notes=console.note, stopping=stop_on_signals)
    except (KeyboardInterrupt, Terminated) as error:
        raise type(error)("stopped and saved; run the same command again to continue") from None
    conclude(console, run)
    return run


def _table(first: Figures, second: Figures) -> Any:
    from rich.table import Table

    table = Table("", "before", "after", "after / before")
    before, after = first.size, second.size

    def add(name: str, values: Sequence[float], shape: str) -> None:
        table.add_row(name, *(f"{value:{shape}}" for value in values), f"{values[1] / values[0]:.3f}")

    add("parameters", [before.parameters, after.parameters], ",d")
    add("MMACs for an image", [before.macs / 1e6, after.macs / 1e6], ",.2f")
    add("MiB", [before.bytes / 2**20, after.bytes / 2**20], ",.2f")
    add("MiB packed", [before.packed_bytes / 2**20, after.packed_bytes / 2**20], ",.2f")
    table.add_row("test top-1 %", *(f"{each.top1:.2f}" for each in (first, second)), "")
    return table


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a share above 0 and below 1 is expected")
    return value


def _agreement(text: str) -> float:
    return 1.0 if text in ("1", "1.", "1.0") else _share(text)


def _parser() -> Parser:
    parser = Parser(
        prog="neq compress",
        usage="neq compress RUN_DIR --output DIR [--prune SHARE] [--low-rank SHARE]\n"
        "       [--attention KIND@LAYERS] [--sparsify SHARE [--rewind]] [--binarize]\n"
        "       [--quantize FORM] [options] [--fine-tune [--KEY VALUE ...]]",
        description="Make the best network of a run smaller, and write it as a folder that neq train "
        "(net_name compressed:DIR), export and compress read. Steps are done in the order above. Behind "
        "--fine-tune, settings as of neq train; the others are those of the run. The same command continues.",
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN_DIR", help="folder of a run, or of a compressed network")
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the compressed network")
    add("--prune", type=_share, metavar="SHARE", help="remove this share of the neurons of each layer")
    add("--importance", choices=IMPORTANCES, default="magnitude",
        help="what --prune ranks neurons by (default: magnitude)")  # fmt: skip
    add("--round-to", type=count, default=8, metavar="N",
        help="widths stay multiples of N (default: 8)")  # fmt: skip
    add("--low-rank", type=_share, metavar="SHARE",
        help="factorize layers to this share of their weights")  # fmt: skip
    add("--dense", choices=DENSE, default="tucker2",
        help="how --low-rank factorizes dense k x k convs (default: tucker2)")  # fmt: skip
    add("--attention", metavar="KIND@LAYER,...", help="put a block se, ulsam or lsas behind layers")
    add("--sparsify", type=_share, metavar="SHARE", help="set this share of the weights to zero")
    add("--scope", choices=SCOPES, default="global",
        help="--sparsify takes the smallest of all layers, or of each (default: global)")  # fmt: skip
    add("--binarize", action="store_true", help="binary weights in dense convs but the first")
    add("--rewind", action="store_true",
        help="return the weights that --sparsify leaves to their values at the start of the run")  # fmt: skip
    add("--quantize", choices=FORMS,
        help="also write int8.onnx for onnxruntime; mixed: some layers in floating point")  # fmt: skip
    add("--agreement", type=_agreement, metavar="SHARE",
        help="share of images that --quantize mixed keeps the class of (default: .99)")  # fmt: skip
    add("--rounds", type=count, default=1, metavar="N",
        help="reach --prune and --sparsify in N steps, fine-tuned after each (default: 1)")  # fmt: skip
    add("--force", action="store_true", help="replace a folder that holds something else")
    return parser
