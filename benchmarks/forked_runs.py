"""Small trainings in processes that can be killed; a server that has torch imported forks them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

import neq.cli.run_pictures
import neq.data.digits
import neq.experiment.run
import neq.results
from neq.cli import main
from neq.config import Config
from neq.networks.neurons import NeuronTable, neuron_table

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["benchmarks.forked_runs"])
# Digits of 12 px: 3 epochs of 35 steps, a few milliseconds each.
FLAGS = (
    *("--image_size", "12", "--n_epochs", "2", "--warmup_epochs", "1", "--base_batch_size", "32"),
    *("--device", "cpu", "--neuron_selection", "velocity", "--augmentation", "square"),
)


def small_network(config: Config, classes: int) -> tuple[nn.Module, NeuronTable]:
    """A network of two convolutions with dropout, and its neurons."""
    torch.manual_seed(config.manual_seed)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, classes)),
    )
    return network, neuron_table(network, (3, 12, 12))


def start(
    folder: Path, *flags: str, output: Path | None = None, before: Callable[[], object] | None = None
) -> ForkServerProcess:
    """Starts `neq train` with the small network, in a process of its own, with one thread.

    Args:
        folder: of the run.
        flags: beside FLAGS.
        output: file that stdout and stderr go to; none: beside the folder.
        before: called in the process first.
    """
    arguments = ["train", *FLAGS, "--run-dir", str(folder), *flags]
    output = folder.with_suffix(".txt") if output is None else output
    process = CONTEXT.Process(target=_train, args=(arguments, output, before))
    process.start()
    return process


def code_of(process: ForkServerProcess, seconds: float = 300) -> int:
    """Waits for a process to end; gives its exit code, -9 after a SIGKILL."""
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        raise TimeoutError(f"a training has not ended in {seconds:.0f} s")
    process.close()
    return code


def _train(arguments: list[str], output: Path, before: Callable[[], object] | None) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ["WANDB_MODE"] = "disabled"
    torch.set_num_threads(1)
    # Pictures take longer than these trainings.
    with (
        patch.object(neq.experiment.run, "open_network", small_network),
        patch.object(neq.cli.run_pictures, "draw_missing", lambda _: []),
    ):
        if before is not None:
            before()
        code = main(arguments)
    sys.exit(code)
