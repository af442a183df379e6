"""What a checkpoint costs: its size, the seconds of saving one, and which of them reading it back takes.

python -m benchmarks.checkpoint_cost
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
from rich.table import Table

from benchmarks.common import at_least, run_benchmark
from neq.cli.parsing import Parser
from neq.networks.build import build_network
from neq.training import Checkpoints
from neq.utils.console import Console

NETWORKS = ("mcunet-in0", "mbv2")


def seconds_of(folder: Path, state: dict[str, object], is_best: bool, verified: bool, rounds: int) -> float:
    """Median seconds of saving a state.

    Args:
        folder: where to save it.
        state: to save.
        is_best: whether the best files are written too.
        verified: whether what was written is read back.
        rounds: saves that count.
    """
    checkpoints, found = Checkpoints(folder), []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        with ExitStack() as stack:
            if not verified:
                stack.enter_context(patch("neq.training.checkpoint._check_written"))
            checkpoints.save(state, is_best)
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code."""

    def command(arguments: list[str]) -> None:
        parser = Parser(prog="python -m benchmarks.checkpoint_cost", description=__doc__)
        parser.add_argument("--rounds", type=at_least(1), default=15, help="saves that count")
        rounds = parser.parse_args(arguments).rounds
        torch.set_num_threads(1)
        table = Table(title=f"saving a checkpoint, median of {rounds}")
        for name in ("network", "last.pt, MB", "s", "s without reading back", "best too, s"):
            table.add_column(name, justify="right")
        for name in NETWORKS:
            weights = build_network(name, 10).state_dict()
            # As much again as momentum, as where everything trains.
            state: dict[str, object] = {
                "network": weights,
                "progress": {"optimizer": {n: w.clone() for n, w in weights.items()}},
            }
            with tempfile.TemporaryDirectory(dir=".") as folder:
                cases = ((False, True), (False, False), (True, True))
                last, unread, best = (seconds_of(Path(folder), state, *case, rounds) for case in cases)
                size = Checkpoints(Path(folder)).last.stat().st_size / 1e6
            table.add_row(name, f"{size:.1f}", f"{last:.3f}", f"{unread:.3f}", f"{best:.3f}")
        Console().print(table)

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
