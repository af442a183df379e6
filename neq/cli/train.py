"""`neq train` and train_classification.py: one run, from flags to its table."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from neq.cli.dry_run import describe
from neq.cli.progress import ProgressDisplay
from neq.cli.run import run_command
from neq.config import Config, dataset, identity, load, run_folder, to_yaml
from neq.data import Data, open_data
from neq.errors import UserError
from neq.networks import build_network, head_name
from neq.neurons import neuron_table
from neq.results import plot_curves, plot_selection, summary_table
from neq.selection import policy_budget
from neq.tracking import RunRecord, read_metrics, read_summary
from neq.training import Checkpoints, Training, total_epochs, train


def main(argv: list[str] | None = None) -> int:
    """Trains one run as the arguments say; gives the exit code."""
    return run_command(_main, sys.argv[1:] if argv is None else argv)


def _main(argv: list[str]) -> int:
    options, resolved = load(argv, "train_classification.py")
    console = Console(soft_wrap=True)
    config = resolved.config
    device = pick_device(config.device)
    with open_data(
        config.data_provider, dataset(config.data_provider.dataset), config.manual_seed, device.type == "cuda"
    ) as data:
        _notes(console, resolved.notes + data.notes)
        folder = Path(config.run_dir or Path("runs") / run_folder(config, data.fingerprint))
        record = RunRecord(folder)
        run = prepare(config, data, device, record)
        if run.table.unselectable:
            _notes(console, [f"not selectable, stays frozen: {', '.join(run.table.unselectable)}"])
        if options.dry_run:
            describe(console, run, folder)
            return 0
        named = identity(config, data.fingerprint)
        record.check(named, config.resume, options.overwrite)
        if record.is_finished() and not options.overwrite:
            _notes(console, [f"{folder} holds this run, finished; --overwrite trains it again"])
        else:
            with record.locked():
                record.check(named, config.resume, options.overwrite)
                _train(console, run, record, fresh=options.overwrite)
    console.print(summary_table(read_summary(folder)))
    console.print(f"{folder}", highlight=False)
    return 0


def pick_device(wanted: str) -> torch.device:
    """The device to compute on.

    Args:
        wanted: "auto" takes CUDA where there is one.

    Raises:
        UserError: "cuda" where there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available here; take --device cpu or auto")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return torch.device(wanted)


def prepare(config: Config, data: Data, device: torch.device, record: RunRecord) -> Training:
    """Builds the network and its table, and checks that the policies fit them; writes nothing.

    Raises:
        UserError: a scheme that does not fit the network or the budget.
    """
    size = config.data_provider.image_size
    assert size is not None, "image_size is resolved"
    network = build_network(config.net_config.net_name, len(data.classes), config.manual_seed)
    table = neuron_table(network, (3, size, size), head=head_name(network))
    network.to(device).to(memory_format=torch.channels_last)
    run = Training(config, network, table, data, device, Checkpoints(record.checkpoints))
    for policy in (config.NEq_config.initialization, config.NEq_config.neuron_selection):
        policy_budget(policy, table, run.scheme, run.budget)
    return run


def _train(console: Console, run: Training, record: RunRecord, fresh: bool) -> None:
    """Trains, from the last checkpoint where there is one, and draws the pictures."""
    resumed = None if fresh else run.checkpoints.load_last()
    done = 0
    if resumed is None:
        config, data = run.config, run.data
        record.start(to_yaml(config), identity(config, data.fingerprint), run.table)
    else:
        done = resumed["progress"]["epoch"]
        record.rewind(done)
        _notes(console, [f"resumed after {done} epochs"])
    epochs = total_epochs(run.config.run_config)
    with ProgressDisplay(console, epochs, done) as display:
        train(replace(run, trackers=(record, display)), resumed)
    metrics = read_metrics(record.folder)
    plot_curves(metrics, record.folder / "curves.png")
    plot_selection(metrics, record.folder / "selection.png")


def _notes(console: Console, lines: tuple[str, ...] | list[str]) -> None:
    for line in lines:
        console.print(f"neq: {line}", style="dim", highlight=False, markup=False)
