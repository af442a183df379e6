"""base_lr auto: the trials, the choice, and that a run with the rate it finds is the same run."""

import copy
import math
import operator
from dataclasses import replace
from functools import partial
from itertools import accumulate

import pytest
import torch
from torch import nn

from neq.config import RunSettings
from neq.tasks import StepOutput, Task
from neq.training import Stopped, TrainingDiverged, predict, restore, train
from neq.training.distributed import SINGLE_PROCESS
from neq.training.rate_search import best_first, grid
from tests.tasks.test_task import Calibrated
from tests.training.distributed.test_collectives import double_toy
from tests.training.distributed.together import ended, start
from tests.training.runs import run_of, without_times

AUTO = {"base_lr": "auto", "neuron_selection": "random", "n_epochs": 1, "image_size": 8}
ADAM = {**AUTO, "optimizer_name": "adam", "neuron_selection": "full", "n_epochs": 2}
RATES = [0.00625, 0.0125, 0.025, 0.05, 0.1, 0.2]  # of SGD without momentum


class Quadratic(Task):
    """L(w) = c / 2 (w - 1)^2 of one parameter that begins at 0, with noise in each of 20 steps an epoch."""

    steps_per_epoch, share, best_by = 20, 1.0, "gain"

    def __init__(self, data, device, curvature=100.0, noise=0.0):
        self.w = nn.Parameter(torch.zeros(()))
        self.curvature, self.noise, self.count, self.asked = curvature, noise, 0, []

    def batches(self, epoch, start):
        self.asked.append(epoch)
        yield from range(start, self.steps_per_epoch)

    def loss(self):
        return self.curvature / 2 * (self.w - 1) ** 2

    def step(self, forward, batch):
        self.count += 1
        return StepOutput(self.loss() + self.noise * torch.rand(()) * self.w, {"images": 1})

    def evaluate(self, network, split):
        yield {"images": 1, "loss": self.loss().detach()}

    def scores(self, counts):
        loss = float(counts["loss"]) if "loss" in counts else 0.0
        return {"gain": -loss, "loss": loss}

    def extra_parameters(self):
        return {"w": self.w}

    def state(self):
        return {"count": self.count}

    def load_state(self, state):
        self.count = state["count"]


NOISY = partial(Quadratic, noise=50.0)


def outcome(folder, stop=None, learned=Calibrated, error=None, **settings):
    """Summary, reports, final tensors and lines of a run that is stopped in the search and resumed.

    Args:
        stop: the number of the step, those of trials included, in which it is asked to stop.
        error: raised there instead, as if the process were killed.
    """
    reports, notes = [], []
    for at in (stop, None) if stop is not None else (None,):
        with run_of(folder, learned=learned, **settings) as (run, diary):
            run = replace(run, notes=notes.append)
            run.network.act = nn.Sequential(nn.ReLU(), nn.Dropout(0.1))
            progress = restore(run, run.checkpoints.load_last())
            torch.manual_seed(7)  # whatever a new process begins with
            if at is None:
                summary = train(run, progress)
            else:
                stop_at(run, at, error)
                with pytest.raises(error or Stopped):
                    train(run, progress)
            reports += [without_times(report.metrics) for report in diary.reports]
    tensors = [*run.network.state_dict().values(), *run.task.extra_parameters().values()]
    return without_times(summary), reports, copy.deepcopy(tensors), notes


def stop_at(run, at, error=None):
    real, steps = run.task.step, iter(range(10**6))

    def step(forward, batch):
        if next(steps) == at:
            if error:
                raise error
            run.stop.number = 15
        return real(forward, batch)

    run.task.step = step


def same(one, other):
    assert one[:2] == other[:2]
    assert all(map(torch.equal, one[2], other[2]))


@pytest.mark.parametrize(
    ("settings", "lowest", "highest"),
    [
        ({"momentum": 0}, 0.00625, 0.2),
        ({"momentum": 0.9}, 0.000625, 0.02),
        ({"optimizer_name": "adam", "momentum": 0.9}, 1e-4, 3.2e-3),
        ({"optimizer_name": "adamw"}, 1e-4, 3.2e-3),
    ],
)
def test_the_grid_doubles_and_respects_momentum(settings, lowest, highest):
    rates = grid(RunSettings(**settings))
    assert rates == [pytest.approx(lowest * 2**at, rel=1e-12) for at in range(6)]
    assert (rates[0], rates[-1]) == (lowest, highest)
    assert all(float(f"{rate:g}") == rate for rate in rates)  # the rate that a line shows is the whole one


def test_ties_go_to_the_middle_of_the_grid():
    rates = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert best_first(dict.fromkeys(rates, 0.5), rates) == [4.0, 8.0, 2.0, 16.0, 1.0, 32.0]
    assert best_first({1.0: 0.500, 16.0: 0.504, 8.0: 0.506}, rates) == [16.0, 1.0, 8.0]
    assert best_first({1.0: -0.500, 8.0: -0.496, 2.0: 0.0}, rates) == [8.0, 1.0, 2.0]
    assert best_first({}, rates) == []


def known_losses(rate, steps, curvature):
    """L before gradient descent on `Quadratic` and after each step: (w - 1) <- (1 - lr c) (w - 1)."""
    factors = (1 - rate * (1 + math.cos(math.pi * step / steps)) / 2 * curvature for step in range(steps))
    return [curvature / 2 * distance**2 for distance in accumulate(factors, operator.mul, initial=1)]


@pytest.mark.parametrize("curvature", [3.0, 30.0])
def test_the_best_rate_of_a_quadratic_is_found(tmp_path, curvature):
    learned = partial(Quadratic, curvature=curvature)
    summary, reports, _, notes = outcome(tmp_path, learned=learned, **{**AUTO, "momentum": 0})
    trials, found = summary["rate_search"], summary["base_lr"]
    assert [one["rate"] for one in trials if one["rung"] == 0] == RATES
    for one in trials:
        known = known_losses(one["rate"], one["steps"], curvature)[-1]
        assert one["val_loss"] == pytest.approx(known, rel=2e-2, abs=1e-6)
    losses = {one["rate"]: one["val_loss"] for one in trials if one["rung"] == 1}
    assert len(losses) == 3
    assert [one["steps"] for one in trials] == [20] * 6 + [40] * 3
    assert min(losses.values()) <= losses[found] <= 1.01 * min(losses.values())
    assert reports[0]["lr"] == pytest.approx(found * (1 + math.cos(math.pi * 19 / 20)) / 2)
    assert len(notes) == 1
    assert f"epoch 0 on: {found:g}" in notes[0]
    assert ("an end of the grid, (validation loss" in notes[0]) == (found in (RATES[0], RATES[-1]))


def test_rates_that_diverge_are_dropped(tmp_path):
    """Where none is left, the run ends as a run that diverges does."""
    settings = {**AUTO, "momentum": 0}
    curvature, most = 300.0, torch.finfo(torch.float32).max
    summary, *_ = outcome(tmp_path / "some", learned=partial(Quadratic, curvature=curvature), **settings)
    dropped = [one["rate"] for one in summary["rate_search"] if one["val_loss"] is None]
    assert dropped == [rate for rate in RATES if max(known_losses(rate, 20, curvature)) > most] != []
    assert summary["base_lr"] == RATES[0]
    with pytest.raises(TrainingDiverged, match=r"diverges at every rate .* 0\.00625 .* lower base_lr"):
        outcome(tmp_path / "none", learned=partial(Quadratic, curvature=1e9), **settings)


def test_equal_losses_take_the_middle(tmp_path):
    summary, *_ = outcome(tmp_path, learned=partial(Quadratic, curvature=0), **{**AUTO, "momentum": 0})
    assert summary["base_lr"] == RATES[2]
    assert [one["rate"] for one in summary["rate_search"][6:]] == [RATES[2], RATES[3], RATES[1]]


def test_a_set_with_few_batches_trains_on_those_of_further_epochs(tmp_path):
    class Few(Quadratic):
        steps_per_epoch = 7

    with run_of(tmp_path, learned=Few, **{**AUTO, "n_epochs": 2}) as (run, _):
        train(run)
    assert run.task.asked[:9] == [0, 1, 0, 1, 0, 1, 0, 1, 0]  # 14 steps: all that the run has
    assert run.task.asked[12:16] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_run_that_searches_is_the_run_that_is_given_the_rate(tmp_path):
    """Bit for bit: weights, running statistics, task and random streams are as before the search."""
    settings = {**AUTO, "base_batch_size": 574, "norm_mode": "train"}  # two steps an epoch
    summary, reports, tensors, _ = outcome(tmp_path / "auto", **settings)
    trials, found = summary.pop("rate_search"), summary.pop("base_lr")
    assert [(one["rung"], one["steps"]) for one in trials] == [(0, 2)] * 6 + [(1, 4)] * 3
    losses = [{one["rate"]: one["val_loss"] for one in trials if one["rung"] == rung} for rung in (0, 1)]
    rates = grid(RunSettings(momentum=0.9))
    assert list(losses[0]) == rates
    assert list(losses[1]) == best_first(losses[0], rates)[:3]
    assert found == best_first(losses[1], rates)[0]
    assert len(set(losses[0].values())) == 6
    given = outcome(tmp_path / "given", **{**settings, "base_lr": found})
    same((summary, reports, tensors), given)
    assert given[3] == []
    assert given[0].keys() == summary.keys()


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A run that is not stopped."""
    found = outcome(tmp_path_factory.mktemp("noisy"), learned=NOISY, **ADAM)
    assert [one["epoch"] for one in found[0]["rate_search"]] == [0] * 9 + [1] * 9
    return found


def test_each_search_begins_a_schedule(noisy):
    summary, reports, *_ = noisy
    losses = {
        one["rate"]: one["val_loss"]
        for one in summary["rate_search"]
        if (one["epoch"], one["rung"]) == (0, 1)
    }
    peaks = best_first(losses, grid(RunSettings(optimizer_name="adam")))[0], summary["base_lr"]
    last = (1 + math.cos(math.pi * 19 / 20)) / 2
    assert [report["lr"] for report in reports] == [pytest.approx(peak * last) for peak in peaks]


@pytest.mark.parametrize("stop", [0, 130, 239, 245, 300])
def test_a_search_that_is_stopped_goes_on_at_its_next_trial(tmp_path, noisy, stop):
    """Two searches of 240 steps and two epochs of 20: in a trial, at its end, in an epoch."""
    same(outcome(tmp_path, stop, NOISY, **ADAM), noisy)


def test_a_process_that_is_killed_loses_one_trial(tmp_path, noisy):
    same(outcome(tmp_path / "parts", 130, NOISY, InterruptedError, **ADAM), noisy)
    for minutes, trials in ((10, 6), (0, None)):
        with run_of(tmp_path / f"{minutes}", learned=NOISY, **ADAM, checkpoint_minutes=minutes) as (run, _):
            stop_at(run, 130, InterruptedError)
            with pytest.raises(InterruptedError):
                train(run)
            state = run.checkpoints.load_last()
        assert (state and len(state["progress"]["rate_trials"])) == trials


@pytest.mark.slow
def test_a_search_between_epochs_of_velocity_is_resumed(tmp_path):
    settings = {**AUTO, "neuron_selection": "velocity", "n_epochs": 2, "base_batch_size": 574}
    whole = outcome(tmp_path / "whole", **settings)
    assert [one["epoch"] for one in whole[0]["rate_search"]] == [0] * 9 + [1] * 9
    first = sum(one["steps"] for one in whole[0]["rate_search"][:9]) + 2
    same(outcome(tmp_path / "parts", first + 33, **settings), whole)


def test_scores_without_a_loss_are_named(tmp_path):
    class Lossless(Quadratic):
        def scores(self, counts):
            return {"gain": 1.0}

    with (
        run_of(tmp_path, learned=Lossless, **AUTO) as (run, _),
        pytest.raises(ValueError, match="the scores of task Lossless are gain; add loss"),
    ):
        train(run)


def test_the_copy_of_what_trains_counts_in_the_prediction(tmp_path):
    found = {}
    for rate in ("auto", 0.1):
        with run_of(tmp_path, learned=Calibrated, **{**AUTO, "base_lr": rate}) as (run, _):
            found[rate] = predict(run)
            buffers = sum(buffer.nbytes for buffer in run.network.buffers())
    copied = found["auto"].before
    assert copied == found["auto"].gradients + buffers
    assert found["auto"].peak - found[0.1].peak == copied


WORKER = """
import sys, torch
from pathlib import Path
from neq.training.distributed.process_group import process_group
from tests.training.test_rate_search import searched_together

torch.set_num_threads(1)
with process_group() as processes:
    torch.save(searched_together(Path(sys.argv[1], "run"), processes), f"{sys.argv[1]}/{processes.rank}.pt")
"""


def searched_together(folder, processes=SINGLE_PROCESS):
    settings = {**AUTO, "norm_mode": "frozen", "base_batch_size": 383}
    with run_of(folder, processes, double_toy(), **settings) as (run, _):
        summary = train(run)
        return summary["base_lr"], summary["rate_search"], dict(run.network.state_dict())


@pytest.mark.slow
def test_two_processes_search_as_one(tmp_path):
    for code, _, error in ended(start(2, WORKER, str(tmp_path))):
        assert code == 0, error
    one = searched_together(tmp_path / "one")
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert both[0][:2] == both[1][:2]
    for found, trials, tensors in both:
        assert found == one[0]
        for mine, theirs in zip(trials, one[1], strict=True):
            assert mine == {**theirs, "val_loss": pytest.approx(theirs["val_loss"], rel=1e-9)}
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, one[2][name], rtol=1e-9, atol=1e-11)
