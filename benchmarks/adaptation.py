"""Adaptation to unlabelled domains: methods beside the source alone and the labelled target.

python -m benchmarks.adaptation --data pacs --weights mobilenet_v3_small.safetensors --transfers photo-sketch
python -m benchmarks.adaptation --data pacs --weights mobilenet_v3_small.safetensors --methods study
python -m benchmarks.adaptation --table

--data holds a folder (or an .npz file) for each domain; a transfer is SOURCE-TARGET, by default every pair.
All methods take as many rounds of the target, and the last epoch counts: no label of the target chooses
anything. Methods that start from a network of the source take that of the row `source` with the same seed.
`--methods study` trains mcc within budgets, after the rows that it is compared with: a policy's share of the
training memory of a step of mcc that trains everything with both domains in one call, or an amount. Its steps
pass one domain after the other.
Every run is written to the output as it ends: the same call goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import torch

from benchmarks.adaptation_rows import FROM_SOURCE, METHODS, OWN, ROWS, STUDY
from benchmarks.adaptation_table import tables
from benchmarks.common import at_least, check_output, machine
from benchmarks.photo_sets import run_reported
from benchmarks.transfer_report import Report
from benchmarks.transfer_runs import of_policy
from neq.budget import CostModel, StepSpec
from neq.cli.parsing import Parser
from neq.config import Config, resolve
from neq.data.opening import run_source
from neq.experiment.network import open_network
from neq.experiment.run import run_training
from neq.runs import identity, read_summary
from neq.training import TrainingDiverged
from neq.utils.device import pick_device
from neq.utils.errors import UserError, unknown_name

KEPT = ("test_top1", "test_top1_all", "saved_bytes", "step_seconds", "epochs")
# What a report's runs have in common.
SHARED = (
    *("network", "image_size", "batch_size", "epochs", "norm_mode", "optimizer", "rate", "head_rate"),
    "bottleneck",
)


@dataclass(frozen=True)
class Run:
    """One run: its transfer, row and seed."""

    given: argparse.Namespace
    transfer: str
    cell: str
    seed: int

    @property
    def key(self) -> tuple[str, str, float, int]:
        """What tells a run of a report from the others."""
        return self.transfer, self.cell, self.given.rate, self.seed

    @property
    def folder(self) -> Path:
        """Where it trains."""
        base: Path = self.given.output.with_suffix(".runs")
        return base / self.transfer / f"{self.cell.replace(', ', '-').replace(' ', '-')}-seed{self.seed}"

    def config(self) -> Config:
        """Its configuration."""
        given, (source, target) = self.given, self.transfer.split("-")
        weights = given.weights
        if self.cell in FROM_SOURCE:
            weights = str(
                Run(given, self.transfer, "source", self.seed).folder / "checkpoint/best.safetensors"
            )
        overrides = {
            **_domain(given.data, source, "dataset", "root"),
            **_domain(given.data, target, "target", "target_root"),
            "transfer": self.transfer,
            "image_size": given.image_size,
            "base_batch_size": given.batch_size,
            "velocity_images": 1,
            "net_name": given.network,
            "weights": weights,
            "n_epochs": given.epochs,
            "warmup_epochs": 0,
            "optimizer_name": given.optimizer,
            "base_lr": given.rate,
            "head_rate": given.head_rate,
            "bottleneck": given.bottleneck,
            "momentum": 0.9,
            "weight_decay": 1e-3,
            "test_per_epochs": given.epochs,
            **of_policy("full", given.norm_mode, ratio=1.0),
            "objective": f"adapt_{self.cell.partition(', ')[0]}",
            **(METHODS[self.cell] if self.cell in METHODS else self._within_budget()),
            "manual_seed": self.seed,
            "run_dir": str(self.folder),
            "resume": (self.folder / "identity.json").exists(),
        }
        return resolve({}, overrides).config

    def _within_budget(self) -> dict[str, object]:
        """The settings of a row of the study."""
        given = self.given
        policy, amount = self.cell.removeprefix("mcc, ").split()
        if amount.endswith("%"):
            share = int(amount.removesuffix("%")) / 100
            amount = f"{round(share * plain_bytes(Run(given, self.transfer, 'mcc', self.seed).config()))}B"
        first = {"auto": "head", "velocity": "random", "random": "random"}[policy]
        more = {"budget": amount, "ratio": None, "velocity_images": 10, "velocity_of": "target"}
        apart = {**OWN, "micro_batch_size": given.batch_size}
        return {**of_policy(policy, given.norm_mode, first, **more), **apart}


def plain_bytes(config: Config) -> int:
    """The training memory of a step that trains everything, both domains in one call."""
    data = config.data_provider
    network, table = open_network(config, len(run_source(data).classes))
    spec = StepSpec.of_config(config, (2 * data.base_batch_size,))
    everything = {layer.name: torch.arange(layer.neurons) for layer in table.layers}
    return CostModel(network, table, spec).step(everything).training_bytes


def train_run(run: Run) -> dict[str, Any]:
    """Trains a run, or goes on with it; returns its entry in the report.

    Raises:
        UserError: data, weights or network that cannot be used.
    """
    entry: dict[str, Any] = dict(zip(("dataset", "cell", "base_lr", "seed"), run.key, strict=True))
    torch.set_num_threads(run.given.threads)
    config = run.config()
    try:
        run_training(config)
    except TrainingDiverged as error:
        entry |= {"outcome": "diverged", "reason": str(error), **dict.fromkeys(KEPT)}
    else:
        summary = read_summary(run.folder)
        entry |= {"outcome": "finished", "reason": None, **{key: summary[key] for key in KEPT}}
    if run.cell != "source":
        shutil.rmtree(run.folder / "checkpoint", ignore_errors=True)
    return {**entry, "machine": machine(pick_device(config.device))}


def train(report: Report, given: argparse.Namespace) -> None:
    """Trains what the report lacks: all transfers with one seed, then with the next."""
    first = Run(given, given.transfers[0], "source", 0).config()
    settings = {key: getattr(given, key) for key in SHARED}
    report.settle({**settings, "weights": str(identity(first).get("weights", given.weights))})
    for seed in range(given.seeds):
        for transfer in given.transfers:
            for cell in given.methods:
                run = Run(given, transfer, cell, seed)
                if not report.holds(run):  # type: ignore[arg-type]
                    print(*run.key, sep="  ", flush=True)
                    report.add(train_run(run))


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UserError: wrong ones.
    """
    parser = Parser(prog="python -m benchmarks.adaptation", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--table", action="store_true", help="print the tables of --output, train nothing")
    add("--data", type=Path, help="folder of the domains")
    add("--transfers", help="some pairs, as photo-sketch,sketch-photo (default: all)")
    add("--methods", default=";".join(METHODS), help=f"study, or some, as mcc;dann: {'; '.join(ROWS)}")
    add("--seeds", type=at_least(1), default=3, help="number of seeds")
    add("--network", default="mobilenet_v3_small")
    add("--weights", default="default", help="default, none, or a file")
    add("--image-size", type=at_least(8), default=96)
    add("--batch-size", type=at_least(2), default=32)
    add("--epochs", type=at_least(1), default=10, help="rounds of the target")
    add("--norm-mode", choices=["train", "frontier", "frozen"], default="frozen")
    add("--optimizer", choices=["sgd", "adam"], default="adam")
    add("--rate", type=float, default=1e-4)
    add("--head-rate", type=float, default=10.0, help="times --rate: of head, bottleneck and discriminators")
    add("--bottleneck", type=at_least(1), default=256)
    add("--threads", type=at_least(1), default=1)
    add("--output", type=Path, default=Path("adaptation.json"), help="a JSON file; runs beside it")
    given = parser.parse_args(argv)
    check_output(given.output)
    study = ("source", "labelled", "mcc", *STUDY)
    given.methods = study if given.methods == "study" else given.methods.split(";")
    for name in given.methods:
        if name not in ROWS:
            raise unknown_name("method", name, ROWS)
    if given.table:
        return given
    if given.data is None or not given.data.is_dir():
        raise UserError("--data is missing: the folder of the domains; see --help")
    domains = sorted({each.name.removesuffix(".npz") for each in given.data.iterdir()})
    known = ["-".join(pair) for pair in permutations(domains, 2)]
    given.transfers = known if given.transfers is None else given.transfers.split(",")
    for name in given.transfers:
        if name not in known:
            raise unknown_name("transfer", name, known)
    return given


def _domain(data: Path, name: str, dataset: str, root: str) -> dict[str, object]:
    folder = data / name
    if folder.is_dir():
        return {dataset: "image_folder", root: str(folder)}
    return {dataset: "npz", root: f"{folder}.npz"}


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return run_reported(parse, train, tables, argv)


if __name__ == "__main__":
    sys.exit(main())
