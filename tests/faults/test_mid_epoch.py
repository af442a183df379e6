"""A run that is left in the middle of an epoch goes on from there, bit for bit."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from neq.training import Stopped, TrainingDiverged, restore, train
from tests.training.runs import LISTS, run_of, without_times
from tests.training.test_loop import poison

pytestmark = pytest.mark.slow

SETTINGS = {
    "velocity": {"neuron_selection": "velocity"},
    "reference rule, Adam": {
        "neuron_selection": "velocity",
        "velocity_rule": "reference",
        "optimizer_name": "adam",
        "base_lr": 0.01,
    },
    "random, norms train": {"neuron_selection": "random", "norm_mode": "train"},
    "SU": {"neuron_selection": "SU", **LISTS},
    "bytes": {"neuron_selection": "velocity", "budget": "400kB", "cost_aware": True},
    "bf16": {"neuron_selection": "velocity", "precision": "bf16", "saved_precision": "bf16"},
    "augmented, loader processes": {
        "neuron_selection": "random",
        "augmentation": "photo",
        "n_worker": 1,
        "n_epochs": 2,
    },
}
STEPS = 8  # of an epoch, in batches of 128


class Stopping:
    """A tracker that asks to stop after one step."""

    def __init__(self, run, at=None):
        self.run, self.at = run, at

    def step(self, epoch, step, steps):
        assert steps == STEPS
        if (epoch, step) == self.at:
            self.run.stop.number = 15

    def epoch(self, report):
        pass

    def finish(self, summary):
        pass


def outcome(folder, at=None, dropout=False, **settings):
    """Summary, reports and final weights of a run that is stopped after a step, saved and resumed."""
    reports = []
    stops = [at, None] if at is not None else [None]
    for stop in stops:
        with run_of(folder, base_batch_size=128, **settings) as (run, diary):
            if dropout:
                run.network.act = nn.Sequential(nn.ReLU(), nn.Dropout(0.2))
            object.__setattr__(run, "trackers", (diary, Stopping(run, stop)))
            state = run.checkpoints.load_last()
            torch.manual_seed(7)  # whatever a new process begins with
            if stop is not None:
                with pytest.raises(Stopped):
                    train(run)
            else:
                summary = train(run, restore(run, state))
            reports += diary.reports
            if state is not None:
                assert diary.steps[0][:2] == ((at[0], at[1] + 1) if at[1] + 1 < STEPS else (at[0] + 1, 0))
    return summary, reports, copy.deepcopy(run.network.state_dict())


def same(one, other):
    assert without_times(one[0]) == without_times(other[0])
    assert [without_times(report.metrics) for report in one[1]] == [
        without_times(report.metrics) for report in other[1]
    ]
    for mine, theirs in zip(one[1], other[1], strict=True):
        assert torch.equal(mine.chosen, theirs.chosen)
        assert (mine.velocity is None and theirs.velocity is None) or torch.equal(
            mine.velocity, theirs.velocity
        )
    assert all(torch.equal(tensor, other[2][name]) for name, tensor in one[2].items())


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_stopped_in_mid_epoch_is_bit_identical(tmp_path, name):
    settings = SETTINGS[name]
    whole = outcome(tmp_path / "whole", **settings)
    for at in ((0, 0), (1, 4)):
        same(outcome(tmp_path / f"{at}", at, **settings), whole)


def test_after_the_last_step_of_an_epoch(tmp_path):
    whole = outcome(tmp_path / "whole", neuron_selection="velocity")
    same(outcome(tmp_path / "parts", (1, STEPS - 1), neuron_selection="velocity"), whole)


def test_dropout_goes_on_where_it_was(tmp_path):
    whole = outcome(tmp_path / "whole", dropout=True, neuron_selection="velocity")
    plain = outcome(tmp_path / "plain", neuron_selection="velocity")
    assert whole[0]["val_loss"] != plain[0]["val_loss"]
    same(outcome(tmp_path / "parts", (1, 4), dropout=True, neuron_selection="velocity"), whole)


def test_a_checkpoint_is_due_after_minutes(tmp_path):
    """0 and null are epochs only."""
    for minutes, least in ((0.00001, 5), (0, 0), (None, 0), (1000, 0)):
        saved = []
        with run_of(
            tmp_path, neuron_selection="random", n_epochs=1, base_batch_size=128, checkpoint_minutes=minutes
        ) as (run, _):
            real = run.checkpoints.save

            def save(state, is_best, real=real, saved=saved):
                saved.append(state["progress"]["epoch_state"])
                real(state, is_best)

            run.checkpoints.save = save
            train(run)
        assert saved.pop() is None
        assert least <= len(saved) <= STEPS * bool(least)
        assert all(epoch_state is not None for epoch_state in saved)


def test_checkpoints_in_mid_epoch_change_nothing(tmp_path):
    whole = outcome(tmp_path / "whole", dropout=True, neuron_selection="velocity", checkpoint_minutes=0)
    often = outcome(tmp_path / "often", dropout=True, neuron_selection="velocity", checkpoint_minutes=0.00001)
    same(often, whole)


def test_a_network_that_has_diverged_is_not_saved_in_mid_epoch(tmp_path):
    settings = {"neuron_selection": "random", "checkpoint_minutes": 0.00001}
    with run_of(tmp_path, **settings) as (run, diary):
        poison(run, lambda: len(diary.steps) == 10)
        with pytest.raises(TrainingDiverged, match="loss is nan in epoch 0, step 10, at learning rate"):
            train(run)
        state = run.checkpoints.load_last()
    assert state["progress"]["epoch_state"]["step"] == 10
    assert all(tensor.isfinite().all() for tensor in state["network"].values())


def test_the_budget_holds_in_the_first_resumed_epoch(tmp_path):
    summary, reports, _ = outcome(tmp_path, (1, 4), neuron_selection="velocity")
    for report in reports:
        used = report.metrics["Saved parameters"]["Number of saved parameters"]
        assert 0 < used <= summary["budget"]


def test_only_torchs_streams_are_drawn_from(tmp_path):
    """Python's and numpy's global states are no part of a checkpoint: no step may depend on them."""
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()
    outcome(tmp_path, (1, 4), dropout=True, neuron_selection="velocity", augmentation="photo")
    assert random.getstate() == before[0]
    assert all(np.array_equal(one, two) for one, two in zip(np.random.get_state(), before[1], strict=True))
