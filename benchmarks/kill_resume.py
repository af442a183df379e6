"""Trainings that are killed at random moments and resumed, held against one that was left alone.

    python -m benchmarks.kill_resume --kills 100 --terminations 20

Each is killed (SIGKILL) or stopped (SIGTERM) at a moment drawn evenly over the training, and resumed with
--resume. Compared are, bit for bit, all of the last and of the best checkpoint (weights, optimizer,
velocities, choice, best so far), best.safetensors, metrics.jsonl, summary.json and every epoch's selection;
recorded times and peak memory apart.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from benchmarks.common import at_least, run_benchmark
from benchmarks.forked_runs import code_of, start
from neq.cli.parsing import Parser
from neq.runs import read_metrics, read_selection, read_summary
from neq.training import load_checkpoint
from neq.utils.console import Console

# As often as a checkpoint in mid-epoch may be: hardly a step passes without one.
OFTEN = ("--checkpoint_minutes", "0.0005")
TIMES = frozenset({"step_seconds", "peak_memory_bytes", "seconds"})


def undisturbed(folder: Path) -> float:
    """Trains a run to its end; gives the seconds from its first file to its end."""
    process = start(folder, *OFTEN)
    begun = _wait_for_start(folder, process)
    if code_of(process) != 0:
        raise RuntimeError(folder.with_suffix(".txt").read_text())
    return time.monotonic() - begun


def stopped(folder: Path, number: int, after: float) -> tuple[int, float]:
    """Starts a run and sends it a signal.

    Args:
        folder: of the run.
        number: of the signal.
        after: seconds after the run's first file.

    Returns:
        The exit code, 0 where the run was faster than the signal; and the seconds from its first file on.
    """
    process = start(folder, *OFTEN)
    begun = _wait_for_start(folder, process)
    process.join(after)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, number)
    return code_of(process), time.monotonic() - begun


def resumed(folder: Path) -> str:
    """Resumes a run to its end; gives what it went on from: "start", "epoch", "mid-epoch" or "end"."""
    code = code_of(start(folder, *OFTEN, "--resume"))
    text = folder.with_suffix(".txt").read_text()
    if code != 0:
        raise RuntimeError(f"{folder}: the resumed run ended with code {code}: {text}")
    if "finished" in text:
        return "end"
    for what in (" steps", "resumed after"):
        if what in text:
            return {" steps": "mid-epoch", "resumed after": "epoch"}[what]
    return "start"


def differences(folder: Path, whole: Path) -> list[str]:
    """Where the record of a run differs from another one's, recorded times apart."""
    found = [
        name
        for name in ("last.pt", "best.pt")
        if not same(
            load_checkpoint(folder / "checkpoint" / name), load_checkpoint(whole / "checkpoint" / name)
        )
    ]
    weights = "checkpoint/best.safetensors"
    found += [] if (folder / weights).read_bytes() == (whole / weights).read_bytes() else [weights]
    found += [] if same(read_metrics(folder), read_metrics(whole)) else ["metrics.jsonl"]
    found += [] if same(read_summary(folder), read_summary(whole)) else ["summary.json"]
    for epoch in range(len(read_metrics(whole))):
        mine, theirs = (read_selection(of / "selection", epoch) for of in (folder, whole))
        if not all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(mine, theirs, strict=True)):
            found.append(f"selection of epoch {epoch}")
    return found


def _wait_for_start(folder: Path, process: Any) -> float:
    deadline = time.monotonic() + 120
    while not (folder / "identity.json").exists():
        if not process.is_alive() or time.monotonic() > deadline:
            raise RuntimeError(f"{folder}: did not start: {folder.with_suffix('.txt').read_text()}")
        time.sleep(0.002)
    return time.monotonic()


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit, recorded times apart."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            name in TIMES or same(value, other[name]) for name, value in one.items()
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return bool(one == other)


def measure(kills: int, terminations: int, seed: int, folder: Path) -> tuple[Counter[tuple[str, str]], int]:
    """Kills and resumes; gives how often each signal met which state, and how many runs came out otherwise.

    A run that has ended before its signal is compared, and another one takes its place.
    """
    undisturbed(folder / "first")  # what is slow once
    seconds = undisturbed(folder / "whole")
    moments = random.Random(seed)
    counts: Counter[tuple[str, str]] = Counter()
    wrong = index = 0
    for number, code, wanted in ((signal.SIGKILL, -9, kills), (signal.SIGTERM, 143, terminations)):
        done = 0
        while done < wanted:
            run, index = folder / f"{index:03d}", index + 1
            ended, lasted = stopped(run, number, moments.uniform(0, seconds))
            if ended not in (code, 0):
                raise RuntimeError(f"{run}: ended with code {ended}: {run.with_suffix('.txt').read_text()}")
            done += ended == code
            if ended == 0:  # the machine has become faster
                seconds = lasted
            met = resumed(run) if ended else "not stopped: it had ended"
            counts[number.name, met] += 1
            found = differences(run, folder / "whole")
            if found:
                wrong += 1
                print(f"{run.name}, {number.name}, {met}: {', '.join(found)} differ")
            else:
                shutil.rmtree(run)
    return counts, wrong


def main(argv: list[str] | None = None) -> int:
    """Runs the command; gives the exit code: 1 if a run came out otherwise."""
    results: list[int] = []

    def command(arguments: list[str]) -> None:
        parser = Parser(prog="python -m benchmarks.kill_resume", description=__doc__)
        parser.add_argument("--kills", type=at_least(0), default=100, help="by SIGKILL")
        parser.add_argument("--terminations", type=at_least(0), default=20, help="by SIGTERM")
        parser.add_argument("--seed", type=at_least(0), default=0, help="of the moments")
        given = parser.parse_args(arguments)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="neq-kills-") as folder:
            counts, wrong = measure(given.kills, given.terminations, given.seed, Path(folder))
        table = Table(title=f"{given.kills + given.terminations} runs, {time.monotonic() - begun:.0f} s")
        for name in ("signal", "resumed from", "runs"):
            table.add_column(name)
        for (name, met), count in sorted(counts.items()):
            table.add_row(name, met, str(count))
        Console().print(table)
        print(f"{wrong} of {sum(counts.values())} differ from the run that was left alone")
        results.append(wrong)

    code = run_benchmark(command, argv)
    return code or int(any(results))


if __name__ == "__main__":
    sys.exit(main())
