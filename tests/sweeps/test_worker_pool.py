"""The sweep engine runs an experiment that is no training: workers, resume and failures are as usual."""

import os
import signal
import time
from contextlib import closing

import psutil
import pytest

from neq.sweeps import cells, history
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.run_sweep import run_sweep
from neq.sweeps.storage import open_storage
from neq.sweeps.worker_pool import FAREWELL, WorkerPool, cores, is_here, workers_that_fit
from neq.utils.errors import UserError
from tests.forked import ensure_server
from tests.sweeps.toy_experiment import run


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_resumed(sweep_of, tmp_path):
    sweep, killed = sweep_of("target: {value: 12}"), []

    def kill(pool):
        log = tmp_path / "counts" / "12-1" / "log.txt"
        if not killed and log.exists() and (written := log.read_text()):
            killed.append(int(written.split()[0]))
            os.kill(killed[0], signal.SIGKILL)

    update, notes = run(sweep, tmp_path, workers=1, watching=kill)
    assert [state.state for state in update.states] == ["done"]
    assert notes[0] == "worker 0 died (killed by signal 9); its cell goes to another"
    lines = [line.split() for line in (tmp_path / "counts" / "12-1" / "log.txt").read_text().splitlines()]
    assert {int(pid) for pid, _ in lines} > set(killed)
    assert [int(total) for _, total in lines] == list(range(1, 13))  # every epoch once


def test_mistakes_are_the_experiments_to_report(sweep_of, tmp_path):
    with pytest.raises(UserError, match="tempo is unknown; allowed: target, step"):
        sweep_of("tempo: {value: 3}")
    with pytest.raises(UserError, match=r"cell 2 of 2 \(target: -1\): target -1 is not allowed"):
        cells(sweep_of("target: {values: [1, -1]}"))
    with pytest.raises(UserError, match=r"metric.name 'score' is unknown"):
        sweep_of(
            "target: {value: 1}", "metric: {name: score}\nearly_terminate: {type: hyperband, min_iter: 1}"
        )


@pytest.mark.slow
def test_a_pool_that_is_stopped_gives_its_cells_back(sweep_of, tmp_path):
    sweep, runs = sweep_of("target: {value: 1000}"), tmp_path / "runs"
    experiment = sweep.experiment()
    queue = CellQueue(open_storage(None, runs), sweep_name(sweep, "sweep", experiment.settings), sweep)
    ensure_server()
    with closing(queue):
        queue.begin()
        pool = WorkerPool(queue, experiment, None, runs, 1, 5)
        for update in run_sweep(queue, pool, 1):
            # Who is stopped before it has written its name leaves the cell to the heartbeat.
            if any(state.trial and history.WORKER in state.trial.user_attrs for state in update.states):
                break
        assert pool.alive == 1
        started = time.monotonic()
        pool.stop()
        assert pool.alive == 0
        assert time.monotonic() - started < FAREWELL  # it was not killed
        assert [state.state for state in queue.states()] == ["waiting"]


def test_auto_counts_cores_and_memory():
    free = psutil.virtual_memory().available
    assert workers_that_fit([{"peak": 1}])[0] == cores()
    assert workers_that_fit([{"peak": 1}, {"peak": 10 * free}])[0] == 1
    device = {"peak": 1, "device_peak": 2**30, "device_free": 10, "device_total": 2**34}
    count, why = workers_that_fit([device])
    assert count == 1
    assert "on the device 0.0 GiB and 1.6 GiB" in why


def test_a_worker_of_this_machine_is_known_by_its_name():
    import socket

    assert is_here(f"{socket.gethostname()}:1:log:1")
    assert not is_here(f"another-{socket.gethostname()}:1:log:1")
