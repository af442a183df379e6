"""What a training step costs, ours beside the alternatives, in one process and interleaved round by round.

python -m benchmarks.training_step --network mbv2 --image-size 128 --batch-size 32 \\
    --norm frozen --selection su1
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.common import (
    at_least,
    check_output,
    machine,
    open_device,
    open_network,
    peak_bytes,
    random_batch,
    run_benchmark,
    seconds,
    settle,
)
from benchmarks.selections import Chooser, chooser
from benchmarks.variants import VARIANTS, Task, Variant, copied, norms
from neq.backward import NORM_MODES, Plan
from neq.budget import CostModel, StepCost, StepSpec
from neq.budget.step_spec import PRECISIONS
from neq.cli.parsing import Parser
from neq.networks.neurons import neuron_table
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, first_line, shown, unknown_name

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        network: a name of neq's, or torchvision:NAME.
        image_size: pixels a side, 1 or more.
        batch_size: images, 2 or more.
        norm: norm mode of what is selected.
        selection: as `benchmarks.selections.chooser` reads it.
        device: "cpu" or "cuda".
        threads: of torch, 1 or more.
        rounds: steps timed of each variant, 1 or more.
        optimizer: "sgd" or "adam".
        precision: "fp32", or "bf16" for autocast around the forward passes.
        variants: names in the order of VARIANTS, "plain" among them.
    """

    network: str
    image_size: int
    batch_size: int
    norm: str
    selection: str
    device: str = "cpu"
    threads: int = 1
    rounds: int = 7
    optimizer: str = "sgd"
    precision: str = "fp32"
    variants: tuple[str, ...] = tuple(VARIANTS)


def measure(settings: Settings) -> dict[str, Any]:
    """Runs the benchmark.

    Returns:
        variants: name -> time_ratio, saved_ratio and peak_ratio, each to plain's; step_ms, saved_bytes and
            peak_bytes, both of one step.
        floor: the least that the selective step must compute, as a share of a full step.
        predicted_saved_bytes, measured_saved_bytes: of the selective variant; none where not known.
        gradient_error: of the selective variant, see `gradient_error`; none where it did not run.
        settings, machine: what was measured, and on what.

    Raises:
        UserError: settings that do not fit together, or this machine.
    """
    device = open_device(settings.device)
    choose = chooser(settings.selection, settings.network)
    torch.set_num_threads(settings.threads)
    task = make_task(settings, choose, device)
    has_selective = "selective" in settings.variants
    error = gradient_error(task) if has_selective else None
    figures = figures_of({name: VARIANTS[name](task) for name in settings.variants}, settings.rounds, device)
    return {
        "variants": figures,
        "floor": floor(task),
        "predicted_saved_bytes": cost_of(task).saved_bytes,
        "measured_saved_bytes": figures["selective"]["saved_bytes"] if has_selective else None,
        "gradient_error": error,
        "settings": dataclasses.asdict(settings),
        "machine": machine(device),
    }


def cost_of(task: Task) -> StepCost:
    """What the cost model says of the selective step."""
    return _model(task, task.norm_mode).step(task.selection)


def floor(task: Task) -> float:
    """The multiply-accumulates that the selective step cannot do without, as a share of a full step's.

    The table's layers and the head count, what is not a layer (attention, say) does not.
    """
    everything = {layer.name: torch.arange(layer.neurons) for layer in task.table.layers}
    return cost_of(task).macs / _model(task, "train").step(everything).macs


def _model(task: Task, norm_mode: str) -> CostModel:
    batch, channels, height, width = task.images.shape
    network = copied(task, torch.channels_last).network
    shape = (channels, height, width)
    spec = StepSpec((batch,), shape, norm_mode, precision=task.precision, bias_layers=tuple(task.bias_layers))
    return CostModel(network, task.table, spec)


def make_task(settings: Settings, choose: Chooser, device: torch.device) -> Task:
    """The network, its batch and its selection."""
    network = open_network(settings.network, CLASSES).to(device)
    shape = (settings.batch_size, settings.image_size, CLASSES, device)
    images, labels = random_batch(*shape)
    try:
        table = neuron_table(network, (3, settings.image_size, settings.image_size))
        with torch.no_grad():
            accepted = isinstance(network.train()(images), Tensor)
        settle(network, [images, random_batch(*shape, number=1)[0]])
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"network {shown(settings.network)} does not take {settings.batch_size} images of "
            f"{settings.image_size} pixels: {first_line(error)}"
        ) from error
    if not accepted:
        raise UserError(f"network {shown(settings.network)} gives more than class scores in train mode")
    chosen = choose(network, table)
    selection = table.selection(chosen.neurons)
    return Task(
        network, table, selection, chosen.bias_layers, settings.norm, images, labels, settings.optimizer,
        settings.precision,
    )  # fmt: skip


def gradient_error(task: Task) -> float:
    """How far the plan's gradients are from those of a stock network in the same norm mode and layout.

    Over the first two images, in float64: the largest difference within whatever trains, chosen rows, norms
    or head, relative to the largest gradient there, or to 1e-4 of the network's largest if that is more.
    """
    network = copied(task).network.double()
    task = dataclasses.replace(task, network=network, images=task.images[:2].double(), labels=task.labels[:2])
    stock, ours = copied(task, torch.channels_last), copied(task, torch.channels_last)
    if task.norm_mode == "frozen":
        for norm in norms(stock.network):
            norm.eval()
    plan = Plan(ours.network, task.table, task.selection, task.norm_mode, task.bias_layers)
    for model, images in ((stock.network, stock.images), (plan, ours.images)):
        nn.functional.cross_entropy(model(images), task.labels).backward()
    gradients = {name: parameter.grad for name, parameter in stock.network.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values() if gradient is not None)
    errors = []
    for name, leaf in plan.named_parameters():
        whole = gradients[name]
        assert whole is not None
        assert leaf.grad is not None
        expected = plan.parts[name].take(whole)
        # A bias ahead of a norm on batch statistics has no gradient but rounding: nothing to be relative to.
        scale = max(float(expected.abs().max()), 1e-4 * largest)
        errors.append(float((leaf.grad - expected).abs().max()) / scale)
    return max(errors)


def figures_of(
    variants: dict[str, Variant], rounds: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """The figures of every variant, plain first, interleaved round by round."""
    for variant in variants.values():
        variant.step()
    saved = {name: variant.saved_bytes() for name, variant in variants.items()}
    peak = {name: peak_bytes(variant.step, device) for name, variant in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            times[name].append(seconds(variant.step, device))
    return {
        name: {
            "time_ratio": statistics.median(
                own / plain for own, plain in zip(times[name], times["plain"], strict=True)
            ),
            "saved_ratio": saved[name] / saved["plain"],
            "peak_ratio": peak[name] / peak["plain"],
            "step_ms": statistics.median(times[name]) * 1000,
            "saved_bytes": saved[name],
            "peak_bytes": peak[name],
        }
        for name in variants
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Prints a report of `measure`."""
    settings, machine_ = report["settings"], report["machine"]
    table = Table(
        title=f"{settings['network']} {settings['image_size']} px, batch {settings['batch_size']}, "
        f"norms {settings['norm']}, {settings['selection']}, {settings['optimizer']}, {settings['precision']}"
    )
    table.add_column("variant")
    for heading in ("time", "saved", "peak", "step ms", "saved MiB", "peak MiB"):
        table.add_column(heading, justify="right")
    for name, figures in report["variants"].items():
        ratios = (f"{figures[key]:.3f}" for key in ("time_ratio", "saved_ratio", "peak_ratio"))
        mebibytes = (f"{figures[key] / 2**20:.1f}" for key in ("saved_bytes", "peak_bytes"))
        table.add_row(name, *ratios, f"{figures['step_ms']:.1f}", *mebibytes)
    console.print(table)
    console.print(f"FLOP floor of the selective step: {report['floor']:.3f} of a full step")
    if report["measured_saved_bytes"] is not None:
        predicted = report["predicted_saved_bytes"]
        told = "not predicted" if predicted is None else f"{predicted:,} predicted"
        console.print(f"saved for backward: {report['measured_saved_bytes']:,} bytes measured, {told}")
        console.print(f"gradient error: {report['gradient_error']:.1e}")
    console.print(
        f"{machine_['device']}, {machine_['cpu']}, {machine_['threads']} threads, torch {machine_['torch']}"
    )


def parse(argv: list[str]) -> tuple[Settings, Path | None]:
    """The settings that arguments give, and where the report goes.

    Raises:
        UserError: wrong arguments.
    """
    parser = Parser(prog="python -m benchmarks.training_step", description=__doc__)
    parser.add_argument("--network", required=True, help="a network of neq's, or torchvision:NAME")
    parser.add_argument("--image-size", type=at_least(1), required=True)
    parser.add_argument("--batch-size", type=at_least(2), required=True)
    parser.add_argument("--norm", choices=NORM_MODES, required=True)
    parser.add_argument("--selection", required=True, help="suN, random:R, late:R (R from 0 to 1) or full")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=Settings.device)
    parser.add_argument("--threads", type=at_least(1), default=Settings.threads)
    parser.add_argument("--rounds", type=at_least(1), default=Settings.rounds)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default=Settings.optimizer)
    parser.add_argument("--precision", choices=PRECISIONS, default=Settings.precision)
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"some of {', '.join(VARIANTS)}")
    parser.add_argument("--output", type=Path, help="a JSON file for the report")
    given = vars(parser.parse_args(argv))
    given.pop("debug")  # read where errors are printed
    output: Path | None = given.pop("output")
    if output is not None:
        check_output(output)
    wanted = given.pop("variants").split(",")
    for name in wanted:
        if name not in VARIANTS:
            raise unknown_name("variant", name, VARIANTS)
    variants = tuple(name for name in VARIANTS if name in ("plain", *wanted))
    return Settings(**given, variants=variants), output


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        settings, output = parse(arguments)
        report = measure(settings)
        show(report, Console())
        if output is not None:
            write_text(output, json.dumps(report, indent=2) + "\n")

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
