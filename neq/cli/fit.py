"""`neq fit`: a folder of photos in, a network that knows its classes out."""

from __future__ import annotations

import argparse
import math
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from neq.cli.parsing import Parser, seconds
from neq.config import Config, Options, find_config, parse_flags, read_yaml, resolve
from neq.config.flags import PHOTOS_CONFIG
from neq.runs.layout import IDENTITY
from neq.utils.errors import UserError
from neq.utils.exit_codes import Terminated

if TYPE_CHECKING:
    from neq.utils.console import Console

# Flags of neq train that the command gives itself.
REFUSED = ("dataset", "root", "run_dir", "resume", "budget", "ratio", "budget_unit", "scheme", "objective")
# The copy of the best network, in the folder of the run.
NETWORK = "network"


def command(arguments: list[str]) -> int:
    """Fits a network to photos; returns the exit code.

    Args:
        arguments: "fit", then the folder, options, and flags as of `neq train`.
    """
    own, run = _options(arguments[1:])
    photos: Path = own.photos.expanduser().resolve()
    out: Path = own.out.expanduser() if own.out else Path("fitted") / photos.name
    if out.resolve().is_relative_to(photos):
        raise UserError(f"--out {out} lies inside the photos of {own.photos}; give another")
    overrides = {
        **run.overrides,
        "dataset": "image_folder",
        "root": str(own.photos),
        "run_dir": str(out),
        "resume": (out / IDENTITY).exists() and not run.overwrite,
    }
    if own.memory is not None:
        overrides["budget"] = own.memory
    resolved = resolve(read_yaml(find_config(run.config_file)), overrides)
    config = resolved.config
    if own.memory is not None and config.NEq_config.budget_unit != "bytes":
        raise UserError(f"--memory {own.memory} is not allowed: a size is expected, as 64MiB")
    if not config.data_provider.use_validation:
        raise UserError("--use_validation 0 is not allowed: the best epoch is chosen by validation images")
    from neq.utils.console import Console

    console = Console()
    for line in resolved.notes:
        console.note(line)
    _fit(config, own.time, out, run.overwrite, console)
    return 0


def _fit(config: Config, seconds: float | None, out: Path, overwrite: bool, console: Console) -> None:
    """Trains, resumes or reuses the run; copies its network and reports it."""
    from neq.cli.progress import ProgressDisplay
    from neq.cli.run_pictures import draw_missing, images_title
    from neq.experiment.run import run_training
    from neq.experiment.time_limit import Deadline
    from neq.results import summary_table
    from neq.results.best import copy_best
    from neq.runs import read_metrics, read_summary
    from neq.training import stop_on_signals, total_epochs

    started = time.monotonic()
    deadline = Deadline(math.inf if seconds is None else seconds)
    if seconds is not None:
        config = _within(config, seconds, out, console)
    try:
        with ProgressDisplay(console, total_epochs(config.run_config)) as display:
            run_training(
                config,
                overwrite=overwrite,
                trackers=(display, deadline),
                notes=console.note,
                stopping=stop_on_signals,
            )
    except (KeyboardInterrupt, Terminated) as error:
        raise type(error)("stopped and saved; run the same command again to continue") from None
    for line in draw_missing(out):
        console.note(line)
    copy_best(out, out / NETWORK, force=True)
    if deadline.is_over:
        console.warn(
            f"the time is over after {len(read_metrics(out))} of {total_epochs(config.run_config)} epochs: "
            "steps took longer than measured; the best network is kept, and the same command continues"
        )
    else:
        console.print(summary_table(read_summary(out), images_title(out)))
    predict = shlex.join(["python", str(out / NETWORK / "predict.py")])
    console.lines(
        f"{out}: the run, its pictures and figures, after {time.monotonic() - started:.0f} s",
        f"{out / NETWORK}: the network; classify images by neq predict with this folder, or by",
        f"  {predict} IMAGE ...",
    )


def _within(config: Config, seconds: float, out: Path, console: Console) -> Config:
    """The configuration with as many epochs as the time allows; a run that was begun keeps its epochs."""
    from neq.experiment.time_limit import measure_durations
    from neq.runs import load_run

    settings = config.run_config
    if config.resume:
        epochs = load_run(out).config.run_config.n_epochs
    else:
        fitting = measure_durations(config, out, console.note).epochs(seconds) - settings.warmup_epochs
        epochs = min(fitting, settings.n_epochs)
        console.note(f"{epochs} of at most {settings.n_epochs} epochs, by steps measured on this device")
    return config.model_copy(update={"run_config": settings.model_copy(update={"n_epochs": epochs})})


def _options(arguments: list[str]) -> tuple[argparse.Namespace, Options]:
    """The command's own options, and those of its run."""
    own, rest = _parser().parse_known_args(arguments)
    run = parse_flags(rest, "neq fit", PHOTOS_CONFIG)
    for name in REFUSED:
        if name in run.overrides:
            instead = "--memory SIZE limits the budget" if name in ("budget", "ratio") else "fit decides it"
            raise UserError(f"--{name} is not allowed: {instead}; leave it out, or take neq train")
    if run.dry_run:
        raise UserError("--dry-run is not allowed; neq train --dataset image_folder --root DIR has it")
    return own, run


def _parser() -> Parser:
    parser = Parser(
        prog="neq fit",
        usage="neq fit PHOTOS [--memory SIZE] [--time TIME] [--net_name NAME] [--out DIR] [--overwrite]",
        description="Fine-tune a pretrained network to a folder of photos, one folder per class: the neurons "
        "to train and the learning rate are chosen by themselves. Run the same command again to continue. "
        f"Further flags are those of neq train; their defaults: configuration {PHOTOS_CONFIG!r}.",
    )
    add = parser.add_argument
    add("photos", type=Path, metavar="PHOTOS", help="folder with CLASS/* or train/CLASS/* and test/CLASS/*")
    add("--memory", metavar="SIZE",
        help="training memory of a step: what is kept for backward, gradients, optimizer state "
        "(as 64MiB; default: 5MiB)")  # fmt: skip
    add("--time", type=seconds, metavar="TIME", help="of the whole command, as 10min, 90s, 2h: fewer epochs")
    add("--out", type=Path, metavar="DIR", help="folder of the run (default: fitted/NAME of the photos)")
    return parser
