"""A policy that needs gradients, in runs: the trainer measures them, and nothing else changes."""

import copy
from dataclasses import replace
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.config import Policy, policies, register
from neq.selection import batch_gradients
from neq.selection.random import score as random_score
from neq.training import context, predict, restore, train
from neq.training.context import measure_gradients
from neq.training.profiling import SavedBytes
from tests.toys import Toy, toy
from tests.training.runs import run_of, train_until

TIMES = ("step_seconds", "peak_memory_bytes", "neuron_selection")
TAYLOR = {"neuron_selection": "taylor", "n_epochs": 3, "base_batch_size": 128}
AUTO = {"neuron_selection": "auto", "initialization": "head", "cost_aware": True, "norm_mode": "frozen"}


class WithDropout(Toy):
    """Draws from torch's global stream in every step."""

    def forward(self, x):
        return super().forward(F.dropout(x, 0.1, self.training))


@pytest.fixture
def probe():
    """Random, but with gradients measured for nothing."""
    register(Policy("probe", __name__, needs="gradients"))
    yield
    del policies._REGISTRY["probe"]


def score(state):
    assert state.gradients is not None
    return random_score(state)


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return value


def outcome(folder, **settings):
    """Summary, metrics and final weights of a run."""
    with run_of(folder, **settings) as (run, diary):
        summary = without_times(train(run))
        return (
            summary,
            [without_times(report.metrics) for report in diary.reports],
            copy.deepcopy(run.network.state_dict()),
        )


def assert_same(ours, theirs):
    assert ours[:2] == theirs[:2]
    assert all(torch.equal(value, theirs[2][name]) for name, value in ours[2].items())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_measuring_gradients_changes_nothing_else_in_a_run(tmp_path, probe, optimizer):
    def network():
        torch.manual_seed(0)
        return WithDropout(10)

    settings = {"optimizer_name": optimizer, "augmentation": "photo", "base_lr": 0.01, "base_batch_size": 128}
    plain, probed = (
        outcome(tmp_path / policy, network=network(), neuron_selection=policy, **settings)
        for policy in ("random", "probe")
    )
    assert_same(probed, plain)


def test_gradients_are_those_of_the_epochs_first_batch(tmp_path):
    with run_of(tmp_path, **TAYLOR) as (run, _):
        found = measure_gradients(run, 1)
        images, labels = next(run.data.train_batches(1))
        stock = copy.deepcopy(run.network).eval()
        F.cross_entropy(stock(images), labels).backward()
        assert found.keys() == {f"{layer.name}.weight" for layer in run.table.layers}
        for name, gradient in found.items():
            assert torch.allclose(gradient, stock.get_parameter(name).grad, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        TAYLOR,
        {**TAYLOR, "budget": "400kB", "cost_aware": True},
        {**TAYLOR, "unit": "input_channel"},
        {**AUTO, "budget": "100kB", "choose_every": 1},
        {**AUTO, "neuron_selection": "trady", "budget": "100kB", "unit": "input_channel"},
        {**AUTO, "neuron_selection": "medyate"},
    ],
)
def test_a_run_keeps_its_budget_and_resumes_bit_for_bit(tmp_path, settings):
    whole = outcome(tmp_path / "whole", **settings)
    assert all(metrics["Budget"]["used"] <= metrics["Budget"]["limit"] for metrics in whole[1])

    with run_of(tmp_path / "parts", **settings) as (run, diary):
        train_until(run, diary, 2)
    with run_of(tmp_path / "parts", **settings) as (run, rest):
        summary = train(run, restore(run, run.checkpoints.load_last()))
        metrics = [without_times(report.metrics) for report in diary.reports + rest.reports]
        assert_same((without_times(summary), metrics, run.network.state_dict()), whole)


def test_its_choice_is_by_gradients_in_every_epoch_but_the_first(tmp_path):
    with run_of(tmp_path / "random", **{**TAYLOR, "neuron_selection": "random"}) as (run, random):
        train(run)
    with run_of(tmp_path / "taylor", **TAYLOR) as (run, taylor):
        train(run)
    same = [torch.equal(a.chosen, b.chosen) for a, b in zip(random.reports, taylor.reports, strict=True)]
    assert same == [True, False, False]


@pytest.mark.slow
def test_auto_trains_the_head_alone_and_then_what_it_chose_once(tmp_path):
    with run_of(tmp_path, **AUTO, budget="100kB", n_epochs=4) as (run, diary):
        train(run)
    first, *later = (report.chosen for report in diary.reports)
    assert not first.any()
    assert later[0].any()
    assert all(torch.equal(each, later[0]) for each in later)


@pytest.mark.slow
@pytest.mark.parametrize("initial", [1, 2, 3, 5])
def test_initialization_chooses_the_first_epochs(tmp_path, initial):
    settings = {"initialization": "full", "neuron_selection": "random", "initial_epochs": initial}
    with run_of(tmp_path, **settings, n_epochs=4, ratio=0.5, choose_every=2) as (run, diary):
        summary = train(run)
    chosen = [tuple(report.chosen.tolist()) for report in diary.reports]
    first, later = chosen[:initial], chosen[initial:]
    assert len(set(first)) == 1
    assert all(each != first[0] for each in later)
    assert all(one == other for one, other in zip(later[::2], later[1::2], strict=False))
    assert summary["saved_bytes"] > 0


@pytest.mark.parametrize(
    ("settings", "initial"),
    [
        ({**AUTO, "n_epochs": 2}, 1),
        ({**AUTO, "n_epochs": 16}, 2),
        ({**AUTO, "n_epochs": 16, "base_batch_size": 512}, 6),
        ({**AUTO, "n_epochs": 1000, "base_batch_size": 512}, 25),
        ({**AUTO, "n_epochs": 16, "initial_epochs": 2}, 2),
        ({**AUTO, "n_epochs": 16, "initial_epochs": 99}, 16),
        ({"neuron_selection": "random", "n_epochs": 16}, 1),
    ],
)
def test_what_measures_importance_lets_the_head_fit_first(tmp_path, settings, initial):
    """50 steps of it, but no more than three eighths of the run."""
    with run_of(tmp_path, **settings) as (run, _):
        assert run.initial_epochs == initial
        assert run.policy(initial - 1).name == run.config.NEq_config.initialization


@pytest.mark.slow
@pytest.mark.parametrize(("every", "distinct"), [(1, 4), (2, 2), (9, 1)])
def test_a_policy_chooses_again_every_so_many_epochs(tmp_path, every, distinct):
    with run_of(tmp_path, neuron_selection="random", choose_every=every, n_epochs=5) as (run, diary):
        train(run)
    later = [tuple(report.chosen.tolist()) for report in diary.reports[1:]]
    assert len(set(later)) == distinct
    assert later == [later[number // every * every] for number in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, [1]),
        ({"choose_every": 2}, [1, 3]),
        ({"choose_every": 2, "initial_epochs": 2}, [2, 4]),
        ({"neuron_selection": "trady", "cost_aware": False}, [1]),
    ],
)
def test_importance_is_measured_before_a_choice_and_by_trady_once(tmp_path, monkeypatch, settings, epochs):
    measured = []
    real = context.importance_of

    def importance_of(run, epoch, criterion):
        measured.append(epoch)
        return real(run, epoch, criterion)

    monkeypatch.setattr(context, "importance_of", importance_of)
    with run_of(tmp_path, **{**AUTO, "n_epochs": 5, **settings}) as (run, _):
        train(run)
    assert measured == epochs


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_for_measuring_gradients_is_predicted(tmp_path, precision):
    network = nn.Sequential(
        *(layer for _ in range(3) for layer in (nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU())),
        nn.Flatten(),
        nn.Linear(108, 10),
    )
    with run_of(tmp_path, network=network, precision=precision, **TAYLOR) as (run, _):
        images, labels = next(run.data.train_batches(1))
        images = images.contiguous(memory_format=torch.channels_last)
        saved = SavedBytes(chain(network.parameters(), network.buffers(), [images]))

        def loss_of(forward):
            with saved.counting(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                outputs = forward(images)
            return F.cross_entropy(outputs.float(), labels)

        gradients = batch_gradients(network, run.table, loss_of)
        needed = saved.total + images.nbytes + sum(gradient.nbytes for gradient in gradients.values())
        assert needed <= predict(run).measuring <= 2 * needed
    with run_of(tmp_path, network=toy(0, torch.float32, 10), n_epochs=3, neuron_selection="random") as (
        run,
        _,
    ):
        assert predict(run).measuring == 0


@pytest.mark.parametrize("settings", [AUTO, {"neuron_selection": "random", "base_lr": "auto"}])
def test_checks_are_called_within_searches_and_measurements(tmp_path, settings):
    called = []

    def check():
        called.append(1)
        if len(called) == 3:
            raise MemoryError

    settings = {**settings, "budget": "100kB", "n_epochs": 2}
    with run_of(tmp_path, **settings) as (run, diary), pytest.raises(MemoryError):
        train(replace(run, checks=(check,)))
    assert len(called) == 3
    assert len(diary.reports) <= 1
