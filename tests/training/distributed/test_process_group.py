"""Several processes: how they find each other, and that one of them says why they end."""

import signal
import time

import pytest

from neq.cli import main
from neq.training.distributed import SINGLE_PROCESS
from neq.training.distributed.process_group import process_group
from neq.utils.device import pick_device
from neq.utils.errors import UserError
from neq.utils.exit_codes import RUN_STOPPED, Terminated
from neq.utils.launch_env import LaunchRank, launch_rank
from tests.forked import Forked
from tests.training.distributed.together import ended, start

# Sums for ever; what happens to whom after a while is the script's argument.
WORKER = """
import os, signal, sys, time
from neq.utils.launch_env import quiet_connections
quiet_connections()
import torch
from neq.training.distributed.process_group import process_group
from neq.utils.exit_codes import run_command
from neq.utils.errors import UserError

def command(arguments):
    what, number = arguments
    with process_group(patience=float(os.environ.get("PATIENCE", "60"))) as processes:
        print("ready", flush=True)
        for step in range(10_000):
            processes.sum(torch.ones(3))
            if step == 20 and processes.rank == int(number):
                if what == "mistake":
                    raise UserError("this cannot be")
                os.kill(os.getpid(), getattr(signal, what))
            time.sleep(0.01)
    return 0

sys.exit(run_command(command, sys.argv[1:], None))
"""
KILLED_WHILE_CONNECTING = """
import os, signal
import torch.distributed as dist
if os.environ["RANK"] == "1":
    dist.init_process_group = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""
STORE = """
import time
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
print(store.port, flush=True)
time.sleep(600)
"""
SHORT = {"PATIENCE": "4"}  # seconds, where a process that does not answer is waited for
RESUME = "run the same command again with --resume to continue from the last checkpoint\n"
SILENT = f"neq: another process of the run has ended, or has not answered for 4 s; {RESUME}"


def wait_until_ready(worker):
    """Older versions of gloo (that of torch 2.9) print a line, too."""
    while "ready\n" not in worker.output():
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.02)


def lines_of(found):
    return "".join(error for _, _, error in found)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_with_one_line():
    found = ended(start(3, WORKER, "SIGKILL", "2"))
    assert [code for code, _, _ in found] == [1, 1, -signal.SIGKILL]
    assert lines_of(found) == f"neq: process 2 of the run has died; {RESUME}"


@pytest.mark.slow
def test_the_first_process_is_missed_too():
    """It holds the store."""
    found = ended(start(2, WORKER, "SIGKILL", "0"))
    assert [code for code, _, _ in found] == [-signal.SIGKILL, 1]
    assert lines_of(found) == f"neq: process 0 of the run has died; {RESUME}"


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others_with_one_line():
    first, second = start(2, WORKER, "SIGSTOP", "1", **SHORT)
    try:
        ((code, _, line),) = ended([first])
    finally:
        second.kill()
        ended([second])
    assert code == 1
    assert line == SILENT


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])  # the first one holds the store, and takes it along
def test_a_mistake_of_one_process_is_told_once(rank):
    found = ended(start(2, WORKER, "mistake", str(rank)))
    assert lines_of(found) == "neq: this cannot be\n"
    assert found[rank][0] == 2
    assert found[1 - rank][0] != 0


@pytest.mark.slow
def test_a_process_that_is_killed_while_they_connect_ends_the_others_with_one_line():
    found = ended(start(2, KILLED_WHILE_CONNECTING + WORKER, "nothing", "9", **SHORT))
    assert [code for code, _, _ in found] == [1, -signal.SIGKILL]
    told = [line for line in lines_of(found).splitlines(keepends=True) if "[c10d]" not in line]  # torch's own
    assert told == [f"neq: process 1 of the run has died; {RESUME}"]


@pytest.mark.slow
def test_a_store_that_hangs_keeps_no_process_from_ending():
    """Started by torchrun, the store is not in the first process."""
    store = Forked(STORE)
    try:
        while not store.output().endswith("\n"):
            assert store.poll() is None, store.communicate()
            time.sleep(0.02)
        port = store.output().strip()
        agent = {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
        workers = start(2, WORKER, "mistake", "0", **agent, **SHORT)
        for worker in workers:
            wait_until_ready(worker)
        store.send_signal(signal.SIGSTOP)
        found = ended(workers, timeout=300)
    finally:
        store.kill()
        store.communicate()
    assert [code for code, _, _ in found] == [2, 1]
    assert found[0][2] == "neq: this cannot be\n"
    assert found[1][2] == ""


@pytest.mark.slow
def test_a_signal_to_all_is_told_once():
    workers = start(2, WORKER, "nothing", "9")
    for worker in workers:
        wait_until_ready(worker)
    time.sleep(0.5)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    found = ended(workers)
    assert lines_of(found) == f"neq: {RUN_STOPPED}\n"
    assert [code for code, _, _ in found] == [143, 143]


@pytest.mark.parametrize(
    ("command", "rank", "line"),
    [
        ("train", "0", f"neq: {RUN_STOPPED}\n"),
        ("train", "1", ""),
        (
            "sweep",
            "1",
            "neq: stopped; run the same command again to continue\n",
        ),  # on a cluster each job is one of its own
    ],
)
def test_a_signal_before_they_know_of_each_other_is_the_first_ones_to_tell(
    command, rank, line, monkeypatch, capsys
):
    """A mistake in the flags ends the first process, and torchrun stops the others wherever they are."""

    def stop(_):
        raise Terminated

    monkeypatch.setattr("neq.cli._dispatch", stop)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert main([command]) == 143
    assert capsys.readouterr().err == line


def test_a_process_alone_joins_nobody():
    with process_group({}) as processes:
        assert processes == SINGLE_PROCESS
    with process_group({"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "nowhere"}) as processes:
        assert processes == SINGLE_PROCESS


def test_the_place_of_a_process():
    assert launch_rank({}) == LaunchRank()
    assert launch_rank({"WORLD_SIZE": "1", "RANK": "0"}) == LaunchRank()
    two = {"WORLD_SIZE": "2", "RANK": "1"}
    assert launch_rank(two) == LaunchRank(1, 2, 1, 2)
    assert launch_rank({**two, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}) == LaunchRank(1, 2, 0, 1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set; start the processes with torchrun"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE 'two' in the environment is not a number from 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE '0' in the environment is not a number from 1"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK 2 of WORLD_SIZE 2 .* is no process of the run"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK '-1' in the environment is not a number from 0"),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_WORLD_SIZE": "1"}, "LOCAL_RANK 1 of 1"),
    ],
)
def test_an_environment_that_does_not_fit(environment, message):
    with pytest.raises(UserError, match=message):
        launch_rank(environment)


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    monkeypatch.setattr("torch.backends.cudnn.deterministic", False)
    assert str(pick_device("auto", 1, 2)) == "cuda:1"
    assert taken == [1]
    assert str(pick_device("cuda")) == "cuda"
    with pytest.raises(UserError, match="4 processes on this machine need a GPU each, and it has 2; start 2"):
        pick_device("auto", 0, 4)
    assert str(pick_device("cpu", 0, 4)) == "cpu"
