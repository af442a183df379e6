"""The moving average of weights: its values, what it costs, what is evaluated and saved, and resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from neq.config import resolve
from neq.networks.parameter_slice import ParameterSlice
from neq.training import load_checkpoint, measurement, predict, restore, steps, train
from neq.training.averages import Averages, decay_at
from neq.training.distributed import SINGLE_PROCESS
from neq.utils.errors import UserError
from tests.toys import toy
from tests.training.distributed.test_collectives import double_toy
from tests.training.distributed.together import assert_two_are_one
from tests.training.runs import run_of, stopped_and_resumed

SETTINGS = {"neuron_selection": "random", "n_epochs": 3, "ema_decay": 0.98}


def test_the_decay_warms_up():
    assert [decay_at(0.999, step) for step in (1, 2, 90)] == [2 / 11, 3 / 12, 91 / 100]
    assert decay_at(0.5, 9) == 0.5
    assert decay_at(0.999, 10**6) == 0.999


def followed(monkeypatch):
    """The average over all weights by torch, updated after every step of the runs that follow."""
    kept, real = {}, steps.train_step

    def step(run, epoch, batch, measured=None):
        if "model" not in kept:
            kept["model"] = AveragedModel(
                run.network,
                avg_fn=lambda average, now, count: average.lerp(now, 1 - decay_at(0.98, kept["step"])),
            )
            kept["model"].n_averaged.fill_(1)  # else the first update copies the weights
            kept["step"] = 0
        output = real(run, epoch, batch, measured)
        kept["step"] += 1
        kept["model"].update_parameters(run.network)
        return output

    monkeypatch.setattr(steps, "train_step", step)
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"norm_mode": "train"}, {"unit": "input_channel"}])
def test_the_average_of_chosen_rows_is_that_over_all_weights(tmp_path, monkeypatch, settings):
    """Rows that leave the choice come closer to their weights; a faulty form would leave them behind."""
    whole = followed(monkeypatch)
    with run_of(tmp_path, network=double_toy(), **SETTINGS, **settings) as (run, _):
        train(run)
        averages = restore(run, run.checkpoints.load_last()).averages
        found = averages.averaged(run.network)
        assert averages.steps == whole["step"] == 3 * run.task.steps_per_epoch
        assert any(not part.is_whole for part, _ in averages.rows.values())
        for name, expected in whole["model"].module.named_parameters():
            torch.testing.assert_close(found[name], expected.detach(), rtol=1e-10, atol=1e-12)
        assert any(not torch.equal(found[name], each) for name, each in run.network.named_parameters())


def test_a_step_touches_the_rows_that_it_trains_and_no_others():
    network = toy(classes=10)
    averages = Averages(0.9)

    class OnePlan:
        def __init__(self):
            self.network = network
            self.parts = {"stem.weight": ParameterSlice(torch.tensor([1, 4]))}
            self.leaf = torch.nn.Parameter(torch.ones(2, 3, 3, 3, dtype=torch.float64))

        def named_parameters(self):
            return iter({"stem.weight": self.leaf}.items())

    plan = OnePlan()
    averages.enter(plan)
    start_values = network.stem.weight[[1, 4]].detach().clone()
    averages.update(plan)
    _, values = averages.rows["stem.weight"]
    assert values.shape == (2, 3, 3, 3)
    torch.testing.assert_close(values, start_values.lerp(torch.ones_like(values), 1 - 2 / 11))
    plan.parts = {"stem.weight": ParameterSlice(torch.tensor([0, 4, 6]))}
    averages.enter(plan)
    kept, merged = averages.rows["stem.weight"]
    assert kept.index.tolist() == [0, 1, 4, 6]
    assert torch.equal(merged[[1, 2]], values)
    assert torch.equal(merged[[0, 3]], network.stem.weight[[0, 6]])


@pytest.mark.slow
def test_the_averages_are_evaluated_and_saved_and_training_goes_on_from_the_weights(tmp_path, monkeypatch):
    seen, real = [], measurement.evaluate

    def evaluate(run, split):
        seen.append({name: value.clone() for name, value in run.network.state_dict().items()})
        return real(run, split)

    monkeypatch.setattr(measurement, "evaluate", evaluate)
    with run_of(tmp_path / "averaged", **SETTINGS, use_validation=False) as (run, diary):
        train(run)
        state = load_checkpoint(run.checkpoints.last)
        saved = load_file(run.checkpoints.best_weights)
        last = seen[-1]
        assert all(torch.equal(saved[name], value) for name, value in last.items())
        weights = run.network.state_dict()
        assert all(torch.equal(state["network"][name], value) for name, value in weights.items())
        assert not torch.equal(saved["head.weight"], weights["head.weight"])
        assert torch.equal(saved["norm1.running_mean"], weights["norm1.running_mean"])
        tests = [report.metrics["test"]["test/loss"] for report in diary.reports]
    plain = {**SETTINGS, "ema_decay": None, "use_validation": False}
    with run_of(tmp_path / "plain", **plain) as (run, other):
        train(run)
        assert all(torch.equal(value, weights[name]) for name, value in run.network.state_dict().items())
        assert [report.metrics["test"]["test/loss"] for report in other.reports] != tests
        train_losses = [[report.metrics["train"] for report in each.reports] for each in (diary, other)]
        assert train_losses[0] == train_losses[1]
        assert load_checkpoint(run.checkpoints.last)["progress"]["averages"] is None


def outcome(folder, stop=None, **settings):
    """Summary, metrics and files of a run that is stopped after a step and resumed."""
    summary, metrics, run = stopped_and_resumed(lambda: run_of(folder, **settings), stop)
    averages = load_checkpoint(run.checkpoints.last)["progress"]["averages"]["rows"]
    values = [*run.network.state_dict().values(), *(each["values"] for each in averages.values())]
    return summary, metrics, values, run.checkpoints.best_weights.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [(1, 17), (1, 34)])
def test_it_resumes_bit_for_bit_in_mid_epoch_and_before_the_evaluation(tmp_path, stop):
    whole = outcome(tmp_path / "whole", **SETTINGS)
    parts = outcome(tmp_path / "parts", stop, **SETTINGS)
    assert parts[:2] == whole[:2]
    assert all(map(torch.equal, parts[2], whole[2]))
    assert parts[3] == whole[3]


def trained_together(folder: Path, processes=SINGLE_PROCESS):
    settings: dict[str, Any] = {**SETTINGS, "n_epochs": 2, "norm_mode": "frozen", "base_batch_size": 33}
    with run_of(folder, processes, double_toy(), **settings) as (run, diary):
        train(run)
        tests = [report.metrics["test"]["test/loss"] for report in diary.reports]
        return [*run.network.parameters(), torch.tensor(tests)]


@pytest.mark.slow
def test_two_processes_average_as_one(tmp_path):
    assert_two_are_one(trained_together, tmp_path, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_budget_in_bytes_counts_the_average_of_what_trains_and_the_prediction_of_all_that_may(tmp_path):
    found = {}
    for decay in (None, 0.98):
        settings = {**SETTINGS, "ema_decay": decay, "budget": "100kB", "momentum": 0.9}
        with run_of(tmp_path / str(decay), **settings) as (run, diary):
            model = run.allocator(run.policy(0)).model
            everything = run.table.selection(torch.ones(len(run.table), dtype=torch.bool))
            found[decay] = model.step(everything), predict(run)
            train(run)
            assert all(report.metrics["Budget"]["used"] <= 100_000 for report in diary.reports)
            rows = restore(run, run.checkpoints.load_last()).averages
            parameters = sum(each.nbytes for each in run.network.parameters())
    plain, averaged = (each[0] for each in found.values())
    assert averaged.optimizer_bytes == 2 * plain.optimizer_bytes  # momentum, and the average
    assert averaged.saved_bytes == plain.saved_bytes
    kept = sum(values.nbytes for _, values in rows.rows.values())
    of_epoch, later = found[0.98][1].gradients, found[0.98][1].before - found[None][1].before
    assert kept <= of_epoch + later == parameters


def test_a_choice_that_stays_predicts_its_own_rows_alone(tmp_path):
    for policy, more in (("full", False), ("random", True)):
        settings = {**SETTINGS, "neuron_selection": policy, "initialization": policy}
        with run_of(tmp_path / policy, **settings) as (run, _):
            assert (predict(run).before > 0) == more


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"ema_decay": 1}, "ema_decay 1 is not allowed: it must be less than 1"),
        ({"ema_decay": 0}, "ema_decay 0 is not allowed: it must be greater than 0"),
        ({"ema_decay": 0.9, "budget": "30ms"}, "ema_decay 0.9 is not allowed with a budget in time"),
    ],
)
def test_a_wrong_decay_is_refused_in_one_line(settings, problem):
    with pytest.raises(UserError, match=problem):
        resolve({}, settings)


def test_a_damaged_average_is_refused(tmp_path):
    with run_of(tmp_path, **{**SETTINGS, "n_epochs": 1}) as (run, _):
        train(run)
        state = run.checkpoints.load_last()
        row = state["progress"]["averages"]["rows"]["head.weight"]
        row["values"] = row["values"][:3]
        with pytest.raises(UserError, match="averages of another kind"):
            restore(run, state)
