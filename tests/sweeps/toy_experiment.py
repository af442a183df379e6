"""An experiment without torch: it counts up to a target, an epoch a time, in a file per run."""

import os
import time
from contextlib import closing
from pathlib import Path

from neq.experiment.experiment import RunFailed, RunResult
from neq.runs import RunLocation
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.run_sweep import run_sweep
from neq.sweeps.storage import open_storage
from neq.sweeps.worker_pool import WorkerPool
from neq.utils.errors import UserError

PROGRAM = "count.py"
PLACE = "tests.sweeps.toy_experiment:Counting"


class Counting:
    metrics = ("total",)
    base = ""
    preload = ()

    def __init__(self, flags=()):
        self.settings = {"flags": list(flags)}

    def check_parameters(self, names):
        for name in names:
            if name not in ("target", "step"):
                raise UserError(f"{name} is unknown; allowed: target, step")

    def resolve(self, values):
        config = {"step": 1, **values}
        if config["target"] < 0:
            raise UserError(f"target {config['target']} is not allowed: 0 or more is expected")
        return config, ()

    def identity(self, config):
        return config

    def find(self, config, runs):
        folder = runs / "counts" / f"{config['target']}-{config['step']}"
        state = "done" if (folder / "done").exists() else "unfinished" if folder.exists() else "waiting"
        return RunLocation(folder, state)

    def run(self, config, runs, report, notes, cell=None):
        folder = self.find(config, runs).folder
        folder.mkdir(parents=True, exist_ok=True)
        # One line, written at once, is an epoch: who is killed in it leaves all of it or nothing.
        log = folder / "log.txt"
        total = int(log.read_text().split()[-1]) if log.exists() and log.stat().st_size else 0
        report(0, config["target"], {})
        while total < config["target"]:
            time.sleep(0.05)
            total += config["step"]
            with log.open("a") as lines:
                lines.write(f"{os.getpid()} {total}\n")
            notes(f"counted to {total}")
            if total == 13:
                raise RunFailed("13 brings bad luck")
            if report(total, config["target"], {"total": total}):
                return RunResult(folder, {"total": total}, stopped=True)
        (folder / "done").touch()
        return RunResult(folder, {"total": total})


def named(folder):
    """What a hook was called with."""
    (Path(folder) / "seen").touch()
    return ["seen"]


def run(sweep, runs, workers=2, finished=None, watching=lambda pool: None, max_failures=5):
    """Runs a sweep; returns the last update and all notes."""
    from tests.forked import ensure_server  # imports torch, which a worker does not

    ensure_server()
    experiment = sweep.experiment()
    queue = CellQueue(open_storage(None, runs), sweep_name(sweep, "sweep", experiment.settings), sweep)
    notes = []
    with closing(queue):
        queue.begin()
        pool = WorkerPool(queue, experiment, None, runs, workers, max_failures, finished)
        try:
            for update in run_sweep(queue, pool, workers):
                notes += update.notes
                watching(pool)
        finally:
            pool.stop()
    return update, notes
