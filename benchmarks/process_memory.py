"""Memory of a whole process that trains: how much two steps raise the most it ever held, in fresh processes.

    python -m benchmarks.process_memory --network mbv2 --image-size 128 --batch-size 32

Every variant has a process of its own. It builds network, batch and plan, and then takes two steps; the rise
of the most resident memory that it ever had counts: maps, gradients, optimizer state, what libraries take.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import torch
from rich.table import Table

from benchmarks.common import at_least, run_benchmark
from benchmarks.selections import chooser
from benchmarks.training_step import CLASSES, open_network, random_batch
from benchmarks.variants import VARIANTS, Task
from neq.cli.parsing import Parser
from neq.networks.neurons import neuron_table
from neq.training import peak_memory
from neq.utils.console import Console
from neq.utils.errors import UserError

# Variant and selection, norm mode; the first is what the others are compared with.
CASES = (
    ("plain", "full", "train"),
    ("channels_last", "full", "train"),
    ("selective", "su1", "frozen"),
    ("selective", "random:0.088", "frozen"),
    ("selective", "su1", "frontier"),
    ("selective", "random:0.088", "train"),
)


def rise(variant: str, selection: str, norm: str, network: str, image_size: int, batch_size: int) -> int:
    """Bytes by which two steps raise this process's most resident memory, if it did nothing else before.

    Args:
        variant: of VARIANTS.
        selection: as `benchmarks.selections.chooser` reads it.
        norm: norm mode.
        network, image_size, batch_size: what is trained on what.
    """
    torch.set_num_threads(1)
    choose = chooser(selection, network)
    device = torch.device("cpu")
    net = open_network(network, CLASSES)
    table = neuron_table(net, (3, image_size, image_size))
    chosen = choose(net, table)
    images, labels = random_batch(batch_size, image_size, CLASSES, device)
    trained = table.selection(chosen.neurons)
    task = Task(net, table, trained, chosen.bias_layers, norm, images, labels)
    ready = VARIANTS[variant](task)
    before, _ = peak_memory(device)
    ready.step()
    ready.step()
    return peak_memory(device)[0] - before


def measure(case: tuple[str, str, str], network: str, image_size: int, batch_size: int) -> int:
    """`rise` of a case, in a fresh process."""
    module = [sys.executable, "-m", "benchmarks.process_memory", "--case", ",".join(case)]
    settings = ["--network", network, "--image-size", str(image_size), "--batch-size", str(batch_size)]
    done = subprocess.run([*module, *settings], capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1])
    return int(json.loads(done.stdout)["rise"])


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        parser = Parser(prog="python -m benchmarks.process_memory", description=__doc__)
        parser.add_argument("--network", required=True, help="a network of neq's, or torchvision:NAME")
        parser.add_argument("--image-size", type=at_least(1), required=True)
        parser.add_argument("--batch-size", type=at_least(2), required=True)
        parser.add_argument("--case", help="VARIANT,SELECTION,NORM: measure it in this process, print JSON")
        given: dict[str, Any] = vars(parser.parse_args(arguments))
        given.pop("debug")  # read where errors are printed
        case = given.pop("case")
        if case is not None:
            variant, selection, norm = case.split(",")
            print(json.dumps({"rise": rise(variant, selection, norm, **given)}))
            return
        table = Table(title="{network} {image_size} px, batch {batch_size}: two steps".format(**given))
        table.add_column("variant, selection, norm mode")
        table.add_column("MiB", justify="right")
        table.add_column("ratio", justify="right")
        first = None
        for case in CASES:
            found = measure(case, **given)
            first = first or found
            table.add_row(", ".join(case), f"{found / 2**20:.1f}", f"{found / first:.3f}")
        Console().print(table)

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
