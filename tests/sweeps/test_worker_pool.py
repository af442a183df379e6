"""The sweep engine runs an experiment that is no training: workers, resume and failures are as usual."""

import os
import signal
import time
from contextlib import closing

import psutil
import pytest

from neq.sweeps import cells
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.run_sweep import run_sweep
from neq.sweeps.storage import open_storage
from neq.sweeps.worker_pool import WorkerPool, cores, is_here, workers_that_fit
from neq.utils.errors import UserError
<<<<<<< HEAD
from tests.forked import ensure_server
from tests.sweeps.toy_experiment import PLACE, PROGRAM, named


@pytest.fixture
def sweep_of(tmp_path, monkeypatch):
    """Reads a sweep over targets, whose program is the toy's."""
    monkeypatch.setattr(experiments, "_PROGRAMS", dict(experiments._PROGRAMS))
    register(PROGRAM, PLACE)

    def read(parameters, more=""):
        file = tmp_path / "sweep.yaml"
        file.write_text(f"program: {PROGRAM}\nmethod: grid\nparameters: {{{parameters}}}\n{more}\n")
        return read_sweep(file)

    return read


def run(sweep, runs, workers=2, finished=None, watching=lambda pool: None, max_failures=5):
    """Runs a sweep; returns the last update and all notes."""
    experiment = sweep.experiment()
    queue = CellQueue(open_storage(None, runs), sweep_name(sweep, "sweep", experiment.settings), sweep)
    ensure_server()
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


@pytest.mark.slow
def test_workers_share_the_cells_of_any_experiment(sweep_of, tmp_path):
    sweep = sweep_of("target: {values: [1, 2, 3, 4]}", "command: [python3, '${program}', --fast, '${args}']")
    assert sweep.experiment().settings == {"flags": ["--fast"]}
    assert [cell.config for cell in cells(sweep)] == [
        {"step": 1, "target": target} for target in (1, 2, 3, 4)
    ]
    update, _ = run(sweep, tmp_path, finished=named)
    assert [state.state for state in update.states] == ["done"] * 4
    assert [state.trial.value for state in update.states] == [1, 2, 3, 4]
    folders = [tmp_path / "counts" / f"{target}-1" for target in (1, 2, 3, 4)]
    attributes = [state.trial.user_attrs for state in update.states]
    assert [found[history.FOLDER] for found in attributes] == list(map(str, folders))
    assert [found[history.EPOCHS] for found in attributes] == [1, 2, 3, 4]
    assert all((folder / "seen").exists() for folder in folders)
=======
from tests.sweeps.toy_experiment import run
>>>>>>> main


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_resumed(sweep_of, tmp_path):
    sweep, killed = sweep_of("target: {value: 12}"), []

    def kill(pool):
        log = tmp_path / "counts" / "12-1" / "log.txt"
        if not killed and log.exists():
            killed.append(int(log.read_text().split()[0]))
            os.kill(killed[0], signal.SIGKILL)

    update, notes = run(sweep, tmp_path, workers=1, watching=kill)
    assert [state.state for state in update.states] == ["done"]
    assert notes[0] == "worker 0 died (killed by signal 9); its cell goes to another"
    lines = [line.split() for line in (tmp_path / "counts" / "12-1" / "log.txt").read_text().splitlines()]
    assert {int(pid) for pid, _ in lines} > set(killed)
    assert [int(total) for _, total in lines] == list(range(1, 13))  # every epoch once


<<<<<<< HEAD
@pytest.mark.slow
def test_failures_end_their_cell_alone(sweep_of, tmp_path):
    sweep = sweep_of("target: {values: [1, 13, 2]}, step: {value: 1}")
    update, _ = run(sweep, tmp_path, workers=1)
    assert [state.state for state in update.states] == ["done", "failed", "done"]
    assert update.states[1].reason == "13 brings bad luck"
    log = next((tmp_path / "sweeps").glob("*/*.log")).read_text()
    assert "neq: cell 2: {'step': 1, 'target': 13}" in log
    assert "neq: counted to 12" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_early_terminate_stops_runs_by_the_experiments_metric(sweep_of, tmp_path):
    more = "metric: {name: total, goal: maximize}\nearly_terminate: {type: hyperband, min_iter: 1, eta: 2}"
    update, _ = run(sweep_of("target: {value: 6}, step: {values: [2, 1]}", more), tmp_path, workers=1)
    states = {state.state for state in update.states}
    assert "done" in states
    assert states <= {"done", "stopped"}


=======
>>>>>>> main
def test_mistakes_are_the_experiments_to_report(sweep_of, tmp_path):
    with pytest.raises(UserError, match="tempo is unknown; allowed: target, step"):
        sweep_of("tempo: {value: 3}")
    with pytest.raises(UserError, match=r"cell 2 of 2 \(target: -1\): target -1 is not allowed"):
        cells(sweep_of("target: {values: [1, -1]}"))
    with pytest.raises(UserError, match=r"metric.name 'score' is unknown"):
        sweep_of(
            "target: {value: 1}", "metric: {name: score}\nearly_terminate: {type: hyperband, min_iter: 1}"
        )


<<<<<<< HEAD
@pytest.mark.slow
def test_the_commands_take_it_too(sweep_of, tmp_path, monkeypatch, capsys):
    sweep_of("target: {values: [1, 2]}")
    monkeypatch.chdir(tmp_path)
    ensure_server()
    assert main(["sweep", "sweep.yaml"]) == 0
    assert "best total: 2, cell 2 in runs/counts/2-1" in capsys.readouterr().out
    assert main(["cells", "sweep.yaml"]) == 0
    assert "2 done, 0 unfinished, 0 waiting" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/counts/2-1/counted.json").read_text()) == 2


@pytest.mark.slow
=======
>>>>>>> main
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
        assert time.monotonic() - started < 30
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
