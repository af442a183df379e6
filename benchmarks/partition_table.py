"""The kept table: top-1 and loss of every strategy of the small task, by seed; made once, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.partition_stack import trained
from benchmarks.partition_task import TRAINED, images, sizing
from neq.partition.strategies import strategies, strategy_name
from neq.utils.atomic_files import write_text

FILE = Path(__file__).with_name("partition.json")
TOGETHER = 9  # strategies of a stack
# Name of a strategy -> for each seed top-1 in % and cross entropy; an empty list: no widths fit.
Table = dict[str, list[tuple[float, float]]]


def read_table(path: Path = FILE) -> Table:
    """The table in a file; an empty one where there is none."""
    if not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))["strategies"]
    return {name: [(top1, loss) for top1, loss in results] for name, results in rows.items()}


def write_table(path: Path, table: Table) -> None:
    """Writes a table, a strategy a line."""
    rows = (f'  "{name}": {json.dumps(results)}' for name, results in table.items())
    write_text(path, '{"strategies": {\n' + ",\n".join(rows) + "\n}}\n")


def make_table(path: Path, seeds: Sequence[int], note: Callable[[str], object]) -> None:
    """Trains what a table lacks, seed by seed, and writes it as it grows."""
    table, sizer = read_table(path), sizing()
    sized = {strategy_name(sync): sizer.size(sync) for sync in strategies()}
    for name, found in sized.items():
        if found is None:
            table[name] = []
    for number, seed in enumerate(seeds):
        missing = [name for name in sized if name not in table or 0 < len(table[name]) <= number]
        for chunk in _chunks(missing):
            models = [found.model for name in chunk if (found := sized[name]) is not None]
            for name, (top1, loss) in zip(chunk, trained(models, *images(), TRAINED, seed), strict=True):
                table.setdefault(name, []).append((round(top1, 2), round(loss, 4)))
            write_table(path, {name: table[name] for name in sized if name in table})
            note(f"seed {seed}: {sum(len(rows) > number for rows in table.values())} of {len(sized)}")


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), TOGETHER):
        yield names[start : start + TOGETHER]
