"""Budgets in time, in runs: recorded, the same in every process, and after a resume on another device."""

import threading

import pytest
import torch
from torch import distributed as dist

from neq.budget import Latency
from neq.training import restore, train
from neq.training.distributed import SINGLE_PROCESS, ProcessGroup
from neq.training.step_times import StepTimes
from neq.utils.errors import UserError
from tests.training.runs import run_of, train_until

LATENCY = Latency({"step": 1e6, "values_passed": 5.0, "layers_passed": 2e4, "layers_chosen": 3e4}, 0.07)
SETTINGS = {"neuron_selection": "random", "budget": "1.3ms", "norm_mode": "frozen", "n_epochs": 2}


@pytest.fixture
def device(monkeypatch):
    """A device of known speed; a list of its latency model, to be changed."""
    found = [LATENCY]
    monkeypatch.setattr("neq.training.context.device_latency", lambda model, device, memory: found[0])
    return found


def chosen(diary):
    return [report.chosen for report in diary.reports]


def test_a_run_keeps_its_budget_in_time_and_records_it(tmp_path, device):
    with run_of(tmp_path, **SETTINGS) as (run, diary):
        summary = train(run)
        predicted = run.allocator(run.main_policy)
        for report in diary.reports:
            budget = report.metrics["Budget"]
            assert (budget["unit"], budget["limit"]) == ("time", 1_300_000)
            assert 10**6 < budget["used"] == predicted.used(report.chosen) <= budget["limit"]
    assert (summary["budget"], summary["budget_unit"]) == (1_300_000, "time")
    assert summary["latency"] == LATENCY.state()


def test_a_share_is_one_of_everything_in_the_runs_norm_mode(tmp_path, device):
    with run_of(tmp_path, **{**SETTINGS, "budget": "80%time"}) as (run, _):
        allocator = run.allocator(run.main_policy)
        assert allocator.limit == round(0.8 * allocator.total)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_times_of_its_first_device(tmp_path, device):
    with run_of(tmp_path / "whole", **SETTINGS) as (run, diary):
        train(run)
        whole = chosen(diary)

    with run_of(tmp_path / "parts", **SETTINGS) as (run, diary):
        train_until(run, diary, 1)
    device[0] = Latency({"step": 1e9}, 0.0)  # on which the budget would be refused
    with run_of(tmp_path / "parts", **SETTINGS) as (run, rest):
        train(run, restore(run, run.checkpoints.load_last()))
    assert len(parts := chosen(diary) + chosen(rest)) == len(whole)
    assert all(map(torch.equal, parts, whole))
    with (
        run_of(tmp_path / "new", **SETTINGS) as (run, _),
        pytest.raises(UserError, match=r"1\.300 ms is less"),
    ):
        run.check(run.main_policy)


def test_every_process_has_the_times_of_the_first(device):
    store, found = dist.HashStore(), {}

    def get(rank):
        own = Latency({"step": 1.0 + rank}, 0.0)
        group = ProcessGroup(rank, 2, store=store)
        found[rank] = StepTimes().get(lambda: own, group)

    threads = [threading.Thread(target=get, args=(rank,)) for rank in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == dict.fromkeys((0, 1), Latency({"step": 1.0}, 0.0))


def test_what_is_known_is_not_measured_again():
    times = StepTimes()
    assert times.get(lambda: LATENCY, SINGLE_PROCESS) == LATENCY
    assert times.get(lambda: pytest.fail("measured again"), SINGLE_PROCESS) == LATENCY


def test_a_process_predicts_the_step_of_its_share(tmp_path, device):
    with run_of(tmp_path, **SETTINGS) as (run, _):
        alone = run.allocator(run.main_policy).total
    with run_of(tmp_path, ProcessGroup(0, 2, store=dist.HashStore()), **SETTINGS) as (run, _):
        assert 10**6 < run.allocator(run.main_policy).total < alone
