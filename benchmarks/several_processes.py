"""A step in several processes against the same step in one: seconds, and bytes that they exchange.

    torchrun --nproc-per-node 2 -m benchmarks.several_processes --network mbv2 --image-size 128

Rounds alternate: the first process takes the whole batch while the others wait, then each takes its share of
it, batch norms take the statistics of all of it, and the gradients are averaged. One thread a process.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.table import Table

from benchmarks.common import at_least, open_network, random_batch, run_benchmark
from benchmarks.selections import chooser
from neq.backward import Plan, SyncBatchStats, average_gradients
from neq.cli.parsing import Parser
from neq.networks.neurons import neuron_table
from neq.training.distributed import ProcessGroup
from neq.training.distributed.process_group import process_group
from neq.utils.console import Console
from neq.utils.errors import UserError

CLASSES = 10
# Selection, norm mode, and whether batch norms take the statistics of the whole batch.
CASES = (
    *(("full", "train", sync) for sync in (True, False)),
    *(("random:0.088", "train", sync) for sync in (True, False)),
    ("random:0.088", "frozen", False),
    ("su1", "frozen", False),
)


def measure(
    processes: ProcessGroup,
    case: tuple[str, str, bool],
    network: str,
    image_size: int,
    batch_size: int,
    rounds: int,
) -> tuple[float, float, float, int]:
    """Seconds of a step in one process (measured in the first) and in all, of the exchange, and its bytes.

    Args:
        processes: at least two.
        case: one of CASES.
        network, image_size, batch_size: what is trained on what.
        rounds: the medians are over so many.
    """
    selection, norm, sync = case
    images, labels = random_batch(batch_size, image_size, CLASSES, torch.device("cpu"))
    images = images.contiguous(memory_format=torch.channels_last)
    own = slice(processes.rank, None, processes.count)
    share = len(labels[own]) / batch_size

    def made(batch: SyncBatchStats | None) -> tuple[Plan, torch.optim.Optimizer]:
        net = open_network(network, CLASSES).to(memory_format=torch.channels_last)
        table = neuron_table(net, (3, image_size, image_size))
        chosen = chooser(selection, network)(net, table)
        plan = Plan(net, table, table.selection(chosen.neurons), norm, chosen.bias_layers, batch=batch)
        return plan, torch.optim.SGD(plan.parameters(), lr=1e-4, momentum=0.9)

    alone = made(None)
    together = made(SyncBatchStats(processes.sum_there, share) if sync else None)
    seconds: dict[str, list[float]] = {"one": [], "all": [], "exchange": []}
    sent = 0

    def exchange() -> None:
        nonlocal sent
        processes.sum(1)  # who waits for the slower one does not count as exchange
        start = time.perf_counter()
        sent = average_gradients(together[0], share)
        seconds["exchange"].append(time.perf_counter() - start)

    def step(made: tuple[Plan, torch.optim.Optimizer], part: slice, between: Callable[[], None]) -> float:
        plan, optimizer = made
        start = time.perf_counter()
        F.cross_entropy(plan(images[part]), labels[part]).backward()
        between()
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()
        return time.perf_counter() - start

    for _ in range(rounds + 1):
        seconds["one"].append(step(alone, slice(None), lambda: None) if processes.is_first else 0.0)
        processes.sum(1)
        seconds["all"].append(step(together, own, exchange))
    one, both, exchanged = (statistics.median(times[1:]) for times in seconds.values())
    return one, both, exchanged, sent


def benchmark(argv: list[str]) -> None:
    """Measures every case and prints the table."""
    parser = Parser(prog="benchmarks.several_processes", description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mbv2")
    parser.add_argument("--image-size", type=at_least(32), default=128)
    parser.add_argument("--batch-size", type=at_least(4), default=32)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    with process_group() as processes:
        if processes.count == 1:
            raise UserError(
                "one process has nobody to exchange with; start it with torchrun --nproc-per-node 2"
            )
        table = Table()
        for name in (
            "selection",
            "norms",
            "s, one process",
            f"s, {processes.count}",
            "ratio",
            "s, gradients",
            "MB",
        ):
            table.add_column(name, justify="right")
        for case in CASES:
            measured = measure(
                processes, case, asked.network, asked.image_size, asked.batch_size, asked.rounds
            )
            one, both, exchanged, sent = measured
            if processes.is_first:
                figures = (f"{one:.3f}", f"{both:.3f}", f"{both / one:.2f}", f"{exchanged:.4f}")
                norms = f"{case[1]}, sync" if case[2] else case[1]
                table.add_row(case[0], norms, *figures, f"{sent / 1e6:.2f}")
        if processes.is_first:
            Console().print(table)


def main(argv: list[str] | None = None) -> int:
    """The command; gives its exit code."""
    return run_benchmark(benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
