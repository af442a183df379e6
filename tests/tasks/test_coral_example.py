"""A task with a second loader and a second forward pass, from examples/, trains through the loop."""

import json
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

import neq
from examples.coral_task import Coral, coral
from neq.budget import CostModel
from neq.cli.cost import command
from neq.config import dataset, resolve
from neq.data import open_data
from neq.experiment.run import open_run, open_run_data
from neq.runs.identity import FINGERPRINT
from neq.training import predict, train
from neq.training.distributed import SINGLE_PROCESS
from neq.training.profiling import SavedBytes
from tests.training.distributed.test_collectives import double_toy
from tests.training.distributed.together import ended, start
from tests.training.runs import BASE, run_of, stopped_and_resumed

SETTINGS = {"neuron_selection": "velocity", "n_epochs": 2, "image_size": 12}
# A batch that does not divide by two.
TOGETHER = {**SETTINGS, "norm_mode": "frontier", "base_batch_size": 33}


def learned(source, device, processes=SINGLE_PROCESS, batch=32):
    """The task; its target images are the digits in another split, fewer and in another order."""
    settings = {**BASE, "manual_seed": 5, "validation_percentage": 0.5, "base_batch_size": batch}
    config = resolve({}, {**settings, "image_size": 12}).config
    share = (processes.rank, processes.count)
    target = open_data(config.data_provider, dataset("digits"), 5, device, *share)
    assert target.steps_per_epoch < source.steps_per_epoch
    return Coral(source, target, device, weight=1e5)  # the covariances of untrained outputs are tiny


def coral_run(folder, processes=SINGLE_PROCESS, network=None, **settings):
    task = partial(learned, processes=processes, batch=settings.get("base_batch_size", 32))
    return run_of(folder, processes, network, task, **settings)


def outcome(folder, stop=None, **settings):
    """Summary, reports and weights of a run, stopped after a step and resumed where that is asked for."""
    summary, metrics, run = stopped_and_resumed(lambda: coral_run(folder, **settings), stop)
    return summary, metrics, run.network.state_dict()


@pytest.mark.slow
def test_it_resumes_bit_for_bit_after_an_epoch_and_in_mid_epoch(tmp_path):
    whole = outcome(tmp_path / "whole", **SETTINGS)
    for stop in ((0, 34), (1, 17)):
        parts = outcome(tmp_path / f"{stop}", stop, **SETTINGS)
        assert parts[:2] == whole[:2]
        assert all(torch.equal(tensor, whole[2][name]) for name, tensor in parts[2].items())


@pytest.mark.slow
def test_the_term_changes_what_is_learned(tmp_path):
    with coral_run(tmp_path / "coral", **SETTINGS) as (run, diary):
        train(run)
    with run_of(tmp_path / "plain", **SETTINGS) as (run, plain):
        train(run)
    assert diary.reports[0].metrics["train"]["train/loss"] > plain.reports[0].metrics["train"]["train/loss"]
    assert set(diary.reports[0].metrics["train"]) == set(plain.reports[0].metrics["train"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm_mode", "budget"), [("train", 500_000), ("frontier", 400_000), ("frozen", 250_000)]
)
def test_a_budget_in_bytes_counts_both_forward_passes_and_is_not_exceeded(tmp_path, norm_mode, budget):
    settings = {**SETTINGS, "budget": f"{budget}B", "norm_mode": norm_mode}
    with coral_run(tmp_path, **settings) as (run, diary):
        real, measured = run.task.step, []

        def step(forward, batch):
            """Counts what each forward pass keeps, the weights and its images apart."""
            plan, ((images, _), unlabelled) = forward._network, batch
            weights = [*plan.network.parameters(), *plan.network.buffers(), *plan.parameters()]
            saved = SavedBytes([*weights, images, unlabelled])

            class Counted:
                mean = staticmethod(forward.mean)

                def __call__(self, x):
                    with saved.counting():
                        return forward(x)

            output = real(Counted(), batch)
            trained = sum(parameter.nbytes for parameter in plan.parameters())
            measured.append(saved.total + 2 * trained)  # gradients and momenta
            return output

        run.task.step = step
        train(run)
        both = run.allocator(run.policy(0)).model
        one = CostModel(run.network, run.table, replace(both.spec, forwards=(32,)))
        selection = run.table.selection(diary.reports[0].chosen)
        assert one.step(selection).saved_bytes < both.step(selection).saved_bytes
    steps = run.task.steps_per_epoch
    for report in diary.reports:
        found = report.metrics["Budget"]
        # In the first step of the second epoch the loop itself measures, and hooks do not nest.
        of_epoch = measured[report.epoch * steps + 1 : (report.epoch + 1) * steps]
        assert max(of_epoch) == min(of_epoch) == found["used"] <= found["limit"] == budget
    assert predict(run).batch == 2 * 32 * (4 * 3 * 12 * 12 + 8)


WORKER = """
import sys, torch
from pathlib import Path
from neq.training.distributed.process_group import process_group
from neq.training import train
from tests.tasks.test_coral_example import TOGETHER, coral_run, found
from tests.training.distributed.test_collectives import double_toy

torch.set_num_threads(1)
with process_group() as processes:
    with coral_run(Path(sys.argv[1], "run"), processes, double_toy(), **TOGETHER) as (run, diary):
        train(run)
        torch.save(found(run, diary), f"{sys.argv[1]}/{processes.rank}.pt")
"""


def found(run, diary):
    losses = [report.metrics["train"]["train/loss"] for report in diary.reports]
    return {
        "losses": losses,
        "top1": [report.metrics["train"]["train/top1"] for report in diary.reports],
        "chosen": [report.chosen for report in diary.reports],
        "weights": list(run.network.parameters()),
    }


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    for code, _, error in ended(start(2, WORKER, str(tmp_path))):
        assert code == 0, error
    with coral_run(tmp_path / "one", network=double_toy(), **TOGETHER) as (run, diary):
        train(run)
        one = found(run, diary)
    for rank in range(2):
        other = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-6)  # kept in float32
        assert other["top1"] == one["top1"]
        assert all(map(torch.equal, other["chosen"], one["chosen"]))
        for mine, theirs in zip(one["weights"], other["weights"], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_the_distance_is_that_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(9, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    task = object.__new__(Coral)
    task.share = 1.0

    class Whole:
        mean = staticmethod(lambda value: value)

    covariances = [task._covariance(Whole(), x) for x in (source, target)]
    for covariance, x in zip(covariances, (source, target), strict=True):
        torch.testing.assert_close(covariance, torch.cov(x.T))
    expected = (torch.cov(source.T) - torch.cov(target.T)).pow(2).sum() / (4 * 4**2)
    torch.testing.assert_close(coral(*covariances), expected)


def folders(root):
    """Two classes of noise as image folders, and lighter ones beside them."""
    for folder, light in ((root, 0), (root.with_name(f"{root.name}-target"), 60)):
        for number, name in enumerate(("dark", "light")):
            (folder / name).mkdir(parents=True)
            for image in range(20):
                noise = Image.effect_noise((16, 16), 40)
                grey = noise.point(lambda value, add=light + 60 * number: value // 2 + add)
                grey.save(folder / name / f"{image}.png")


@pytest.mark.slow
def test_as_an_objective_it_opens_its_target_and_counts_it_into_the_runs_identity(tmp_path):
    folders(tmp_path / "photos")
    settings = {
        **{"objective": "coral", "dataset": "image_folder", "root": tmp_path / "photos", "image_size": 16},
        **{"n_epochs": 1, "warmup_epochs": 0, "base_batch_size": 8, "velocity_images": 2, "ratio": 0.1},
        **{"neuron_selection": "random", "augmentation": "none", "base_lr": 0.01, "device": "cpu"},
    }
    run = neq.train("transfer", runs=tmp_path, **settings)
    assert run.config.objective == "coral"
    assert run.metrics[0]["test"]["test/top1"] >= 0
    assert neq.train("transfer", runs=tmp_path, **settings).folder == run.folder  # finished, so not trained
    alone = neq.train("transfer", runs=tmp_path, **{**settings, "objective": "classification"})
    prints = [json.loads((each.folder / "identity.json").read_text())[FINGERPRINT] for each in (run, alone)]
    assert prints[0] != prints[1]
    (tmp_path / "photos-target" / "dark" / "0.png").unlink()
    config = resolve({}, {**settings, "root": str(settings["root"])}).config
    with open_run(config, tmp_path, print, open_run_data) as (_, record):
        assert record.folder != run.folder


@pytest.mark.slow
def test_neq_cost_counts_both_forward_passes_of_the_objective(capsys):
    cost = {}
    for objective in ("classification", "coral"):
        assert command(["cost", "--objective", objective, "--net_name", "resnet20", "--ratio", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        line = next(line for line in lines if "bytes kept for backward" in line)
        cost[objective] = int(re.findall(r"[\d,]+", line)[0].replace(",", ""))
    assert cost["coral"] == 2 * cost["classification"]
