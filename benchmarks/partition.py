"""Searches of strategies replayed on the kept table of all 1458, trained on a small task.

python -m benchmarks.partition --make      # trains what the table lacks, seed by seed; resumable
python -m benchmarks.partition             # replays every search, in minutes, and prints the tables
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.common import at_least, run_benchmark
from benchmarks.partition_table import FILE, Table, make_table, read_table
from benchmarks.partition_task import CLASSES, images, sizing
from neq.partition.costs import macs, parameters
from neq.partition.proxies import scores
from neq.partition.search import spearman
from neq.partition.searches import SEARCHES, StrategySearch, TpeSearch
from neq.partition.strategies import Sync, strategies, strategy_name
from neq.partition.tree import TreeSearch
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

REPLAYS = FILE.with_name("partition_replay.json")
BEST_SHARE = 0.01
SCORED = 60  # strategies, evenly among all, for the zero-cost scores
IN_FLIGHT = (1, 4)
# Name in the table of the page -> a search from a seed.
COMPARED: dict[str, Callable[[int], StrategySearch]] = {
    "random": SEARCHES["random"],
    "published tree": SEARCHES["published"],
    "published order, scaled rewards, factor .2": partial(TreeSearch, order="published", factor=0.2),
    **{
        f"tree by stage, factor {factor:g}": partial(TreeSearch, factor=factor)
        for factor in (0.1, 0.2, 0.5, 1.0)
    },
    "TPE": TpeSearch,
}


def main(arguments: list[str]) -> None:
    """Makes the table, or replays searches on it."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    if options.make:
        make_table(FILE, range(options.seeds), lambda line: print(line, flush=True))
        return
    table = read_table()
    if len(table) < len(strategies()):
        raise UserError(
            f"{FILE} has {len(table)} of {len(strategies())} strategies; --make trains the others"
        )
    trials: dict[str, dict[str, float]] = {}
    by_macs = modelled_table()
    for name, made in COMPARED.items():
        repeats = options.repeats if name != "TPE" else max(1, options.repeats // 6)
        rows = {str(flight): replayed(table, made, flight, repeats) for flight in IN_FLIGHT}
        rows["modelled"] = replayed(by_macs, made, 1, repeats)
        trials[name] = {**rows, "repeats": repeats}
    found = {"about": about(table), "correlations": correlations(table), "trials": trials}
    write_text(REPLAYS, json.dumps(found, indent=1) + "\n")
    print(trials_table(found), correlations_table(found), sep="\n\n")


def about(table: Table) -> dict[str, float]:
    """What the table holds: seeds, strategies with widths, and its accuracies."""
    valid = {name: rows for name, rows in table.items() if rows}
    accuracies = sorted(means(table).values())
    return {
        "seeds": min(len(rows) for rows in valid.values()),
        "valid": len(valid),
        "lowest": accuracies[0],
        "median": median(accuracies),
        "threshold": accuracies[-_best_count()],
        "best": accuracies[-1],
    }


def modelled_table() -> Table:
    """A reward without noise: the logarithm of a strategy's MACs, from 70 to 73 % like accuracies."""
    sizer = sizing()
    sized = {strategy_name(sync): sizer.size(sync) for sync in strategies()}
    logs = {name: math.log(macs(each.model, CLASSES)) for name, each in sized.items() if each is not None}
    low, high = min(logs.values()), max(logs.values())
    return {
        name: [(70 + 3 * (logs[name] - low) / (high - low), 0.0)] if name in logs else [] for name in sized
    }


def means(table: Table) -> dict[str, float]:
    """Top-1 of each strategy with widths, mean over the seeds that all have."""
    valid = {name: rows for name, rows in table.items() if rows}
    seeds = min(len(rows) for rows in valid.values())
    return {name: sum(top1 for top1, _ in rows[:seeds]) / seeds for name, rows in valid.items()}


def replayed(table: Table, made: Callable[[int], StrategySearch], in_flight: int, repeats: int) -> float:
    """The median of trials until the first of the best strategies.

    The best are those of the mean over seeds; the search sees the first seed alone.

    Args:
        table: of all strategies.
        made: the search from a seed.
        in_flight: trials that are asked for before the first of them is told.
        repeats: seeds of the search.
    """
    ranked = sorted(means(table).items(), key=lambda each: -each[1])
    best = {name for name, _ in ranked[: _best_count()]}
    return median(_trials(table, made(seed), in_flight, best) for seed in range(repeats))


def _trials(table: Table, search: StrategySearch, in_flight: int, best: set[str]) -> int:
    count = 0
    waiting: list[Sync] = []
    while True:
        while len(waiting) < in_flight and (sync := search.ask()) is not None:
            waiting.append(sync)
        sync = waiting.pop(0)
        name, count = strategy_name(sync), count + 1
        if name in best:
            return count
        search.tell(sync, table[name][0][0] if table[name] else None)


def _best_count() -> int:
    return round(BEST_SHARE * len(strategies()))


def correlations(table: Table) -> dict[str, float | None]:
    """Spearman's correlation of costs and zero-cost scores with accuracy, and that of two seeds."""
    accuracy, sizer = means(table), sizing()
    sized = {strategy_name(sync): sizer.size(sync) for sync in strategies()}
    models = {name: each.model for name, each in sized.items() if each is not None}
    found = {
        "parameters": spearman(
            [(parameters(models[name], CLASSES), top1) for name, top1 in accuracy.items()]
        ),
        "MACs": spearman([(macs(models[name], CLASSES), top1) for name, top1 in accuracy.items()]),
    }
    pixels, labels = (each[:100] for each in images())
    some = list(accuracy)[:: max(1, len(accuracy) // SCORED)][:SCORED]
    scored = {name: scores(models[name], pixels, labels, CLASSES) for name in some}
    for score in next(iter(scored.values())):
        found[f"{score}, {len(some)} strategies"] = spearman(
            [(each[score], accuracy[name]) for name, each in scored.items()]
        )
    if about(table)["seeds"] > 1:
        found["two seeds"] = spearman([(table[name][0][0], table[name][1][0]) for name in accuracy])
    return found


def trials_table(found: Mapping[str, Any]) -> str:
    """The table of trials for the page."""
    lines = ["| search | accuracy | accuracy, 4 in flight | log MACs | repeats |", "|---|---|---|---|---|"]
    for name, rows in found["trials"].items():
        medians = " | ".join(f"{rows[key]:g}" for key in ("1", "4", "modelled"))
        lines.append(f"| {name} | {medians} | {rows['repeats']} |")
    return "\n".join(lines)


def correlations_table(found: Mapping[str, Any]) -> str:
    """The table of rank correlations for the page."""
    rows = (
        f"| {name} | {'-' if rank is None else f'{rank:.2f}'} |"
        for name, rank in found["correlations"].items()
    )
    return "\n".join(["| with validation top-1 | Spearman |", "|---|---|", *rows])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partition", description=__doc__)
    parser.add_argument("--make", action="store_true", help="train what the table lacks")
    parser.add_argument("--seeds", type=at_least(1), default=2, help="of --make (default: 2)")
    parser.add_argument(
        "--repeats", type=at_least(1), default=60, help="of each search; of TPE a sixth (default: 60)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(run_benchmark(main))
