"""SIGTERM and SIGINT save the run where it stands; a second signal ends it at once."""

import os
import signal
import time

import pytest
import torch

from benchmarks.forked_runs import code_of, start
from benchmarks.kill_resume import differences
from neq.runs import read_metrics
from neq.training import Stop, Stopped, load_checkpoint, restore, stop_on_signals, train
from neq.training import steps as steps_module
from tests.training.runs import run_of

pytestmark = pytest.mark.slow

NO_CHECKPOINTS = ("--checkpoint_minutes", "0")


class WaitingStep:
    """The sixth step of the run waits for the signal.

    Args:
        seen: file that is made then.
    """

    def __init__(self, seen):
        self.seen = seen

    def __call__(self):
        step, taken = steps_module.train_step, []

        def waiting(run, *args):
            taken.append(1)
            if len(taken) == 6:
                self.seen.touch()
                while not run.stop.number:
                    time.sleep(0.01)
            return step(run, *args)

        steps_module.train_step = waiting


class EndlessStep:
    """The first step does not end by itself.

    Args:
        begun: file that is made in it.
    """

    def __init__(self, begun):
        self.begun = begun

    def __call__(self):
        def endless(*args):
            self.begun.touch()
            time.sleep(3600)

        steps_module.train_step = endless


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.is_alive(), path
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert code_of(start(folder)) == 0
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_mid_epoch_saves_the_run(tmp_path, whole, number, code):
    folder, seen = tmp_path / "run", tmp_path / "seen"
    process = start(folder, *NO_CHECKPOINTS, before=WaitingStep(seen))
    wait_for(seen, process)
    os.kill(process.pid, number)
    assert code_of(process) == code
    said = folder.with_suffix(".txt").read_text()
    assert "neq: stopped and saved; run the same command again with --resume to continue" in said
    assert "Traceback" not in said
    state = load_checkpoint(folder / "checkpoint" / "last.pt")
    step = state["progress"]["epoch_state"]["step"]
    assert step == 6  # the one that it came in is finished
    assert len(read_metrics(folder)) == state["progress"]["epoch"] == 0
    assert code_of(start(folder, "--resume")) == 0
    assert f"resumed after 0 epochs and {step} of 35 steps" in folder.with_suffix(".txt").read_text()
    assert differences(folder, whole) == []


def test_a_second_signal_ends_at_once(tmp_path):
    folder, begun = tmp_path / "run", tmp_path / "begun"
    process = start(folder, *NO_CHECKPOINTS, before=EndlessStep(begun))
    wait_for(begun, process)
    deadline = time.monotonic() + 120
    while process.is_alive():  # two that arrive at nearly the same time are one request
        assert time.monotonic() < deadline
        process.terminate()
        process.join(0.7)
    assert code_of(process) == 143
    assert "stopped at once" in folder.with_suffix(".txt").read_text()
    assert not (folder / "checkpoint").exists()
    assert code_of(start(folder, "--resume")) == 0


def test_a_signal_that_is_passed_on_is_one_request(monkeypatch):
    now = 100.0
    monkeypatch.setattr("neq.training.stopping.time.monotonic", lambda: now)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        now += 0.4
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGINT
        with pytest.raises(Stopped):
            list(stop.watch([1]))
        now += 0.2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nobody_asks():
    stop = Stop()
    assert list(stop.watch([1, 2])) == [1, 2]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_signal_during_an_evaluation_saves_the_epochs_steps(tmp_path, split):
    with run_of(tmp_path / "run", neuron_selection="velocity") as (run, diary):
        real = run.data.eval_batches

        def batches(name):
            for batch in real(name):
                if name == split and len(diary.reports) == 1:
                    run.stop.number = signal.SIGTERM
                yield batch

        run.data.eval_batches = batches
        with pytest.raises(Stopped):
            train(run)
        state = run.checkpoints.load_last()
    assert state["progress"]["epoch"] == 1
    assert state["progress"]["epoch_state"]["step"] == 35
    with run_of(tmp_path / "run", neuron_selection="velocity") as (run, rest):
        resumed = train(run, restore(run, state))
        weights = run.network.state_dict()
    assert not [step for step in rest.steps if step[0] == 1]
    with run_of(tmp_path / "whole", neuron_selection="velocity") as (run, whole):
        assert train(run)["test_top1"] == resumed["test_top1"]
        assert all(torch.equal(tensor, weights[name]) for name, tensor in run.network.state_dict().items())
    velocities = [report.velocity for report in (*diary.reports, *rest.reports)]
    assert all(torch.equal(one, two.velocity) for one, two in zip(velocities, whole.reports, strict=True))
