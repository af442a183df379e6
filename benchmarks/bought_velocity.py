"""What a memory budget buys: the share of all velocity chosen by rank and by value for the cost.

    python -m benchmarks.bought_velocity

Velocities are drawn, as the fourth power of a uniform number, so that few neurons have most of them.
Nothing is trained and nothing timed.
"""

from __future__ import annotations

import sys

import torch
import torchvision
from rich.table import Table

from benchmarks.common import run_benchmark
from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec
from neq.cli.parsing import Parser
from neq.config import POLICIES
from neq.networks.neurons import neuron_table
from neq.selection import SelectionState
from neq.utils.console import Console

BATCH, SHAPE = 32, (3, 128, 128)


def bought(norm_mode: str, ratio: float) -> tuple[int, float, float]:
    """The budget in bytes, and the share of all velocity that it buys by rank and by value for the cost.

    Args:
        norm_mode: of mobilenet_v2.
        ratio: budget as a share of the training memory of choosing everything.
    """
    network = torchvision.models.mobilenet_v2(num_classes=10).to(memory_format=torch.channels_last)
    table = neuron_table(network, SHAPE)
    stream = torch.Generator().manual_seed(1)
    velocity = torch.rand(len(table), dtype=torch.float64, generator=stream) ** 4
    model = CostModel(network, table, StepSpec((BATCH,), SHAPE, norm_mode))
    allocator = BudgetAllocator(model, Budget("bytes", ratio=ratio))
    state = SelectionState(table, network, stream, None, velocity)
    policy = POLICIES["velocity"]
    choices = [allocator.choose(policy, state, cost_aware) for cost_aware in (False, True)]
    ranked, aware = (float(velocity[choice.chosen].sum() / velocity.sum()) for choice in choices)
    return allocator.limit, ranked, aware


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        Parser(prog="python -m benchmarks.bought_velocity", description=__doc__).parse_args(arguments)
        table = Table("norm mode", "budget", "by rank", "cost_aware", title="share of all velocity chosen")
        for norm_mode in ("frontier", "frozen"):
            for ratio in (0.05, 0.1, 0.3):
                limit, ranked, aware = bought(norm_mode, ratio)
                table.add_row(norm_mode, f"{limit / 2**20:.1f} MiB", f"{ranked:.0%}", f"{aware:.0%}")
        Console().print(table)

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
