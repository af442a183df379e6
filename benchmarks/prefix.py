"""What a step costs when the maps of the frozen first layers are kept, beside plain training.

    python -m benchmarks.prefix --network mbv2 --image-size 128 --batch-size 32 --selection su1 \\
        --output prefix.json

Variants are those of `benchmarks.training_step` under frozen norms, and `prefix`: the same step on kept maps,
as it is once each view of an image has been seen. Its results are checked against the whole plan's first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import at_least, check_output, machine, open_device, run_benchmark
from benchmarks.selections import chooser
from benchmarks.training_step import Settings, figures_of, make_task
from benchmarks.variants import VARIANTS, Task, Variant, selective
from neq.backward import FixedPrefix, Plan
from neq.cli.parsing import Parser
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

NAMES = ("plain", "channels_last", "selective")


def measure(settings: Settings) -> dict[str, Any]:
    """Runs the benchmark.

    Returns:
        variants: name -> time_ratio, saved_ratio, peak_ratio, each to plain's, and their absolute figures.
        map_bytes: of an image's map, in float32; image_bytes: of the image itself, as floats.
        settings, machine: what was measured, and on what.

    Raises:
        UserError: settings that do not fit together, or a selection below which nothing is fixed.
    """
    device = open_device(settings.device)
    torch.set_num_threads(settings.threads)
    task = make_task(settings, chooser(settings.selection, settings.network), device)
    variants = {name: VARIANTS[name](task) for name in NAMES}
    variants["prefix"], maps = on_maps(task)
    return {
        "variants": figures_of(variants, settings.rounds, device),
        "map_bytes": maps.nbytes // len(maps),
        "image_bytes": task.images.nbytes // len(task.images),
        "settings": dataclasses.asdict(settings),
        "machine": machine(device),
    }


def on_maps(task: Task) -> tuple[Variant, torch.Tensor]:
    """The selective step on maps that are kept, and these maps.

    Raises:
        UserError: nothing is fixed below what trains.
    """
    whole = selective(task)
    plan = whole.model
    assert isinstance(plan, Plan)
    prefix: FixedPrefix | None = plan.fixed_prefix()
    if prefix is None:
        raise UserError("nothing is fixed below this selection; choose later layers, as su1 does")
    maps = prefix.before(whole.images)
    assert torch.equal(prefix.after(maps), plan(whole.images)), "the parts compute what the whole does"
    return dataclasses.replace(whole, model=prefix.after, images=maps), maps


def show(report: dict[str, Any], console: Console) -> None:
    """Prints a report of `measure`."""
    settings = report["settings"]
    table = Table(
        title=f"{settings['network']} {settings['image_size']} px, batch {settings['batch_size']}, "
        f"{settings['selection']}"
    )
    for heading in ("variant", "time", "saved", "peak", "step ms"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, figures in report["variants"].items():
        ratios = (f"{figures[key]:.3f}" for key in ("time_ratio", "saved_ratio", "peak_ratio"))
        table.add_row(name, *ratios, f"{figures['step_ms']:.1f}")
    console.print(table)
    console.print(f"a map: {report['map_bytes']:,} bytes; an image: {report['image_bytes']:,}")


def table(report: dict[str, Any]) -> str:
    """A report's table in Markdown."""
    settings, machine_ = report["settings"], report["machine"]
    lines = ["| variant | time | saved for backward | peak |", "| --- | --- | --- | --- |"]
    for name, figures in report["variants"].items():
        ratios = (f"{figures[key]:.3f}" for key in ("time_ratio", "saved_ratio", "peak_ratio"))
        lines.append(f"| {name} | {' | '.join(ratios)} |")
    told = (
        f"{settings['network']}, {settings['image_size']} px, batch {settings['batch_size']}, "
        f"{settings['selection']}, norms frozen, on {machine_['cpu']}, {machine_['threads']} thread, torch "
        f"{machine_['torch']}. A map takes {report['map_bytes']:,} bytes, an image {report['image_bytes']:,} "
        "as floats."
    )
    return "\n".join([*lines, "", told])


def parse(argv: list[str]) -> tuple[Settings, Path | None, bool]:
    """The settings that arguments give, where the report goes, and whether it is only printed.

    Raises:
        UserError: wrong arguments.
    """
    parser: argparse.ArgumentParser = Parser(prog="python -m benchmarks.prefix", description=__doc__)
    parser.add_argument("--network", default="mbv2", help="a network of neq's, or torchvision:NAME")
    parser.add_argument("--image-size", type=at_least(1), default=128)
    parser.add_argument("--batch-size", type=at_least(2), default=32)
    parser.add_argument("--selection", default="su1", help="suN, random:R, late:R (R from 0 to 1)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=Settings.device)
    parser.add_argument("--threads", type=at_least(1), default=Settings.threads)
    parser.add_argument("--rounds", type=at_least(1), default=Settings.rounds)
    parser.add_argument("--output", type=Path, help="a JSON file for the report")
    parser.add_argument("--table", action="store_true", help="print the table of --output, measure nothing")
    given = vars(parser.parse_args(argv))
    given.pop("debug")  # read where errors are printed
    output: Path | None = given.pop("output")
    is_table: bool = given.pop("table")
    if is_table and (output is None or not output.is_file()):
        raise UserError("--table prints the report of --output FILE, which is not there")
    if output is not None:
        check_output(output)
    return Settings(**given, norm="frozen", variants=NAMES), output, is_table


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        settings, output, is_table = parse(arguments)
        if is_table and output is not None:
            print(table(json.loads(output.read_text())))
            return
        report = measure(settings)
        show(report, Console())
        if output is not None:
            write_text(output, json.dumps(report, indent=2) + "\n")

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
