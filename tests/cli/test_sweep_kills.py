import contextlib
import random
import time
from collections import Counter

import psutil
import pytest
from optuna.trial import TrialState

from neq.runs import read_metrics
from neq.sweeps.history import cell_of
from tests.cli.sweeping import TIMEOUT, open_queue, postgresql, start_sweep, write_sweep

pytestmark = pytest.mark.slow

CELLS = "manual_seed: {values: [0, 1, 2, 3, 4, 5]}, budget: {values: [10000, 20000, 30000]}"
KILL_EVERY = 2  # cells that were done meanwhile


@pytest.fixture(params=["file", "postgresql"])
def storage(request):
    """No address for the file beside the runs, or that of a server."""
    if request.param == "file":
        yield None
        return
    with postgresql() as address:
        yield address


def workers_of(process):
    """The worker processes of a `neq sweep`: what its server of forks has forked."""
    with contextlib.suppress(psutil.NoSuchProcess):
        servers = psutil.Process(process.pid).children()
        return [worker for server in servers for worker in server.children()]
    return []


def finish(process):
    """Ends a sweep that takes too long; gives what it said."""
    process.terminate()
    return process.communicate(timeout=120)[0]


def test_cells_are_each_done_once_while_workers_are_killed(tmp_path, storage):
    write_sweep(tmp_path, CELLS)
    where = [] if storage is None else ["--storage", storage]
    process = start_sweep(tmp_path, "sweep.yaml", "--workers", "4", "--max-failures", "100", *where)
    kills, former, start, stream = 0, 0, time.monotonic(), random.Random(0)
    while process.poll() is None:
        assert time.monotonic() - start < TIMEOUT, finish(process)
        time.sleep(0.1)
        workers, done = workers_of(process), len(list(tmp_path.glob("runs/**/summary.json")))
        if len(workers) > 1 and done >= former + KILL_EVERY:
            with contextlib.suppress(psutil.NoSuchProcess):
                stream.choice(workers).kill()
                kills, former = kills + 1, done
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "18 cells: 18 done" in output
    assert kills >= 3
    assert output.count("died (killed by signal 9)") >= 2  # the last ones may have had no cell
    with contextlib.closing(open_queue(tmp_path, storage)) as queue:
        trials = queue.trials()
    by_cell = Counter(cell_of(trial) for trial in trials if trial.state == TrialState.COMPLETE)
    assert by_cell == Counter(range(1, 19))
    assert not [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    folders = [path.parent for path in tmp_path.glob("runs/**/summary.json")]
    assert len(folders) == 18
    assert all([row["epochs"] for row in read_metrics(folder)] == [0, 1] for folder in folders)
