"""Accuracy, size and time of compressed networks, by method and strength, with and without fine-tuning.

python -m benchmarks.compression RUN_DIR ... --output compression.json
python -m benchmarks.compression --table --output compression.json

Each RUN_DIR is a finished run, whose best network is compressed, and fine-tuned by the run's own settings for
a part of its epochs, or for --epochs; with --distill it learns from the original's outputs too. Every result
is written to the output as it is measured: the same call goes on where it was stopped. Times are medians for
one image with one thread, the original's and the other's in turn.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.common import at_least, check_output, machine, run_benchmark
from benchmarks.compression_table import key_of, table
from benchmarks.transfer_report import Report, report_to_write
from neq.cli.parsing import Parser
from neq.compression import compress, read_start, size_of, write_compressed
from neq.compression.make import inputs_of
from neq.compression.run_images import open_images
from neq.compression.steps import fine_tuning
from neq.experiment.run import run_training
from neq.results.best_network import load_best
from neq.runs import read_summary
from neq.utils.errors import UserError, unknown_name

CPU = torch.device("cpu")
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "prune 30 %, magnitude": {"prune": {"share": 0.3}},
    "prune 50 %, magnitude": {"prune": {"share": 0.5}},
    "prune 30 %, taylor": {"prune": {"share": 0.3, "importance": "taylor"}},
    "prune 50 %, taylor": {"prune": {"share": 0.5, "importance": "taylor"}},
    "prune 30 %, velocity": {"prune": {"share": 0.3, "importance": "velocity"}},
    "low rank to 70 %": {"low_rank": {"share": 0.7}},
    "low rank to 50 %": {"low_rank": {"share": 0.5}},
    "50 % zeros": {"sparsify": {"share": 0.5}},
    "80 % zeros": {"sparsify": {"share": 0.8}},
    "binary weights": {"binarize": {}},
    "prune 30 %, taylor, and 50 % zeros": {
        "prune": {"share": 0.3, "importance": "taylor"},
        "sparsify": {"share": 0.5},
    },
}


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UserError: wrong ones.
    """
    parser = Parser(prog="python -m benchmarks.compression", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN_DIR")
    parser.add_argument("--table", action="store_true", help="print the table of --output, measure nothing")
    parser.add_argument("--methods", default=";".join(METHODS), help="with ; between them")
    parser.add_argument("--part", type=at_least(1), default=2, help="fine-tune for 1/PART of the epochs")
    parser.add_argument("--epochs", type=at_least(1), help="fine-tune for so many epochs")
    parser.add_argument("--distill", action="store_true", help="fine-tune from the original's outputs too")
    parser.add_argument("--output", type=Path, default=Path("compression.json"), help="a JSON file")
    given = parser.parse_args(argv)
    given.methods = [name.strip() for name in given.methods.split(";")]
    for name in given.methods:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
    check_output(given.output)
    if not given.table and not given.runs:
        raise UserError("no run is named; give the folders of finished runs, or --table")
    return given


def measure(run: Path, name: str, epochs: int, distilled: bool, work: Path) -> dict[str, Any]:
    """The figures of one method on the network of one run.

    Args:
        run: its folder.
        name: of METHODS.
        epochs: of fine-tuning.
        distilled: whether the run's network teaches beside.
        work: a folder for what is written meanwhile; removed behind.
    """
    best = load_best(run)
    start, config = read_start(best), best.config
    image = torch.zeros(1, 3, best.image_size, best.image_size)
    with open_images(best) as images:
        made = compress(start, METHODS[name], inputs_of(best, images))
        before, after = (images.top1(each.network) for each in (start, made))
    shutil.rmtree(work, ignore_errors=True)
    write_compressed(work / "network", made, best, {})
    settings = {"n_epochs": epochs, "warmup_epochs": 0, "run_dir": str(work / "run")}
    settings |= {"teacher": str(run)} if distilled else {}
    tuned = run_training(fine_tuning(run, work / "network", settings).config)
    summary = read_summary(tuned)
    shutil.rmtree(work)
    milliseconds = _milliseconds([start.network, made.network], image)
    return {
        "dataset": config.data_provider.dataset,
        "root": Path(config.data_provider.root or "").name,
        "network": start.recipe.net_name,
        "seed": config.manual_seed,
        "image_size": best.image_size,
        "method": name,
        "epochs": epochs,
        "distilled": distilled,
        "sizes": [asdict(size_of(each.network, best.image_size)) for each in (start, made)],
        "milliseconds": milliseconds,
        "before": before,
        "after": after,
        "fine_tuned": summary["test_top1"],
        "machine": machine(CPU),
    }


@torch.no_grad()
def _milliseconds(networks: list[nn.Module], image: torch.Tensor, rounds: int = 30) -> list[float]:
    """The median time of a batch of one image, of each network in turn."""
    taken: list[list[float]] = [[] for _ in networks]
    for number in range(rounds + 5):
        for network, times in zip(networks, taken, strict=True):
            start = time.perf_counter()
            network(image)
            if number >= 5:
                times.append(1000 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken]


def benchmark(argv: list[str]) -> None:
    """Runs the command.

    Raises:
        UserError: a mistake in the arguments.
    """
    given = parse(argv)
    if given.table:
        print(table(Report(given.output)))
        return
    torch.set_num_threads(1)
    with report_to_write(given.output) as report:
        report.settle({"part": given.part})
        for name in given.methods:
            for run in given.runs:
                config = load_best(run).config
                epochs = given.epochs or max(1, config.run_config.n_epochs // given.part)
                key = (
                    Path(config.data_provider.root or "").name,
                    config.manual_seed,
                    name,
                    epochs,
                    given.distill,
                )
                if key in map(key_of, report.runs):
                    continue
                print(*key, sep="  ", flush=True)
                report.add(measure(run, name, epochs, given.distill, given.output.with_suffix(".work")))


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return run_benchmark(benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
