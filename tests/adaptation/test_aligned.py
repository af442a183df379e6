"""Steps of both domains: their loss, their memory, resuming, several processes."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from neq.adaptation.aligned import features_of
from neq.adaptation.mcc import class_confusion
from neq.budget import CostModel
from neq.tasks.classification import cross_entropy
from neq.training import train
from neq.training.context import Progress
from neq.training.distributed import SINGLE_PROCESS
from neq.training.forward import NetworkForward
from neq.training.loop import _choose
from neq.training.profiling import SavedBytes
from neq.training.steps import train_step
from neq.utils.errors import UserError
from tests.adaptation.runs import adaptation, domains, refusal
from tests.training.distributed.test_collectives import double_toy
from tests.training.distributed.together import ended, start
from tests.training.runs import stopped_and_resumed

TOGETHER = {"base_batch_size": 33, "norm_mode": "train", "n_epochs": 1}


# Of which gradients and momenta of the discriminator take 8.5 and 9.7 MB.
BUDGETS = {"mcc": 900_000, "dann": 9_600_000, "cdan_e": 11_200_000}
FEATURES = 64 * (16 + 10) * 4
MODES = [("train", "mcc"), ("frozen", "dann"), ("frontier", "cdan_e")]


def test_the_loss_is_that_of_the_source_plus_the_methods(tmp_path):
    with adaptation(tmp_path, "mcc", domains(tmp_path), loss_weight=0.5) as (run, _):
        pair = next(run.task.batches(0, 0))
        run.network.train()
        outputs = run.network(pair.images)
        loss = run.task.step(NetworkForward(run.network, "fp32"), pair).loss
        expected = cross_entropy(outputs[:32], pair.labels) + 0.5 * class_confusion(outputs[32:], 2.5)
        assert torch.allclose(loss, expected)


def test_norms_see_the_domains_together_or_apart(tmp_path):
    found = {}
    for norms in ("joint", "separate"):
        with adaptation(tmp_path, "mixed", domains(tmp_path), domain_norms=norms) as (run, _):
            pair = next(run.task.batches(0, 0))
            run.network.train()
            found[norms] = run.task.step(NetworkForward(run.network, "fp32"), pair).loss
            assert len(run.task.passes(run.config)) == (2 if norms == "separate" else 1)
            alone = cross_entropy(run.network(pair.images[:32]), pair.labels)
    assert torch.allclose(found["separate"], alone)
    assert not torch.allclose(found["joint"], alone)


@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_a_sharpness_radius_takes_the_gradient_of_a_displaced_step(tmp_path, mode):
    """Against stock autograd on the plain network, all of which trains."""
    settings = {"sharpness_radius": 0.1, "norm_mode": mode, "neuron_selection": "full"}
    settings |= {"momentum": 0.0, "weight_decay": 0.0}
    with adaptation(tmp_path, "mcc", domains(tmp_path), **settings) as (run, _):
        assert run.task.passes(run.config) == (1, 2)
        assert run.step_spec().copies == 1
        pair, epoch = next(run.task.batches(0, 0)), _choose(run, Progress(), 0)
        reference = copy.deepcopy(run.network).train(mode == "train")
        trained = [
            value for name, value in reference.named_parameters() if mode == "train" or is_free(name, run)
        ]
        before = [value.detach().clone() for value in trained]
        loss = cross_entropy(reference(pair.images[:32]), pair.labels)
        found = torch.autograd.grad(loss, trained)
        length = torch.cat([each.reshape(-1) for each in found]).norm()
        with torch.no_grad():
            for value, gradient in zip(trained, found, strict=True):
                value += 0.1 * gradient / length
        outputs = reference(pair.images)
        loss = cross_entropy(outputs[:32], pair.labels) + class_confusion(outputs[32:], 2.5)
        found = torch.autograd.grad(loss, trained)
        for group in epoch.optimizer.param_groups:
            group["lr"] = 0.5
        output = train_step(run, epoch, pair)
        assert torch.allclose(output.loss, loss)
        names = [
            name for name, value in reference.named_parameters() if any(value is each for each in trained)
        ]
        ours = dict(run.network.named_parameters())
        for name, start, gradient in zip(names, before, found, strict=True):
            assert torch.allclose(ours[name], start - 0.5 * gradient, atol=1e-6), name


def is_free(name, run):
    """Whether a parameter trains under frozen norms."""
    return not isinstance(run.network.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d)


def test_a_sharpness_radius_needs_a_step_that_reads_both_domains(tmp_path):
    files = domains(tmp_path)
    assert "sharpness_radius is not allowed" in refusal(tmp_path, "source", files, sharpness_radius=0.02)
    message = refusal(tmp_path, "mcc", files, sharpness_radius=0.02, micro_batch_size=32)
    assert "for which a step passes the source twice" in message


def outcome(folder, files, stop=None):
    settings = {"neuron_selection": "velocity", "initialization": "random", "ratio": 0.3}
    opened = partial(adaptation, folder, "dann", files, **settings)
    summary, metrics, run = stopped_and_resumed(opened, stop)
    return summary, metrics, {**run.network.state_dict(), **run.task.extra_parameters()}


@pytest.mark.slow
def test_dann_resumes_bit_for_bit_after_an_epoch_and_in_mid_epoch(tmp_path):
    files = domains(tmp_path, images=100)
    whole = outcome(tmp_path / "whole", files)
    for stop in ((0, 2), (1, 1)):
        parts = outcome(tmp_path / f"{stop}", files, stop)
        assert parts[:2] == whole[:2]
        assert parts[2].keys() == whole[2].keys()
        assert all(torch.equal(value, whole[2][name]) for name, value in parts[2].items())


def test_the_discriminator_of_two_seeds_differs_and_of_one_does_not(tmp_path):
    found = []
    for seed in (0, 0, 1):
        with adaptation(tmp_path, "dann", domains(tmp_path), manual_seed=seed) as (run, _):
            found.append(next(iter(run.task.extra_parameters().values())).detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("norms", ["joint", "separate", "domain"])
@pytest.mark.parametrize(("norm_mode", "method"), MODES)
def test_a_budget_in_bytes_holds_for_both_domains(tmp_path, norms, norm_mode, method):
    """What the steps keep, gradients and momenta: counted as predicted, and within the budget."""
    budget = BUDGETS[method]
    settings = {"budget": f"{budget}B", "ratio": None, "norm_mode": norm_mode, "domain_norms": norms}
    settings |= {"adapt_statistics": norms == "domain"}
    settings |= {"neuron_selection": "random", "initialization": "random", "n_epochs": 1}
    with adaptation(tmp_path, method, domains(tmp_path), **settings) as (run, diary):
        real, measured = run.task.step, []
        own = list(run.task.extra_parameters().values())

        def step(forward, pair):
            plan = forward._network
            weights = [*plan.network.parameters(), *plan.network.buffers(), *plan.parameters()]
            saved = SavedBytes([*weights, *own, pair.images])

            class Counted:
                mean = staticmethod(forward.mean)

                def __call__(self, x):
                    with saved.counting():
                        return forward(x)

            class Method(torch.nn.Module):
                def __init__(self, method):
                    super().__init__()
                    self.method = method

                def forward(self, both):
                    with saved.counting():
                        return self.method(both)

            method = run.task.method
            run.task.method = Method(method) if own else method
            try:
                output = real(Counted(), pair)
            finally:
                run.task.method = method
            trained = sum(each.nbytes for each in [*plan.parameters(), *own])
            measured.append(saved.total + 2 * trained)
            return output

        run.task.step = step
        train(run)
        model = run.allocator(run.policy(0)).model
        one = CostModel(run.network, run.table, replace(model.spec, forwards=(32,)))
        selection = run.table.selection(diary.reports[0].chosen)
        assert one.step(selection).saved_bytes < model.step(selection).saved_bytes
        used = diary.reports[0].metrics["Budget"]["used"]
    # Features count twice where the head keeps them too.
    assert used - (run.task.extra_saved_bytes and FEATURES) <= max(measured[1:]) <= used <= budget


def test_images_in_pairs_need_one_process(tmp_path):
    class Half:
        rank, count = 0, 2

    assert "start one process, or take adapt_mcc" in refusal(tmp_path, "dan", domains(tmp_path), Half())


def test_a_head_of_another_kind_is_refused():
    assert features_of(torch.nn.Conv2d(5, 2, 1)) == 5
    with pytest.raises(UserError, match="needs a head that is Linear or Conv2d, here it is Identity"):
        features_of(torch.nn.Identity())


WORKER = """
import sys, torch
from pathlib import Path
from neq.training.distributed.process_group import process_group
from neq.training import train
from neq.training.context import Progress
from tests.adaptation.test_aligned import TOGETHER, learned

torch.set_num_threads(1)
with process_group() as processes:
    torch.save(learned(Path(sys.argv[1]), sys.argv[2], processes), f"{sys.argv[1]}/{processes.rank}.pt")
"""


def learned(folder, method, processes=SINGLE_PROCESS):
    files = (str(folder / "source.npz"), str(folder / "target.npz"))
    run_folder = folder / f"run{processes.count}"
    with adaptation(run_folder, method, files, processes, double_toy(), **TOGETHER) as (run, diary):
        train(run)
        loss = diary.reports[0].metrics["train"]["train/loss"] if diary.reports else None
        return {"loss": loss, "weights": [*run.network.parameters(), *run.task.extra_parameters().values()]}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mcc", "coral"])
def test_two_processes_train_as_one(tmp_path, method):
    domains(tmp_path)
    for code, _, error in ended(start(2, WORKER, str(tmp_path), method)):
        assert code == 0, error
    one = learned(tmp_path, method)
    first = torch.load(tmp_path / "0.pt")
    for mine, whole in zip(first["weights"], one["weights"], strict=True):
        assert torch.allclose(mine, whole, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("method", "norm_mode", "norms"),
    [("mcc", "frozen", "joint"), ("mcc", "train", "separate"), ("mixed", "frozen", "domain")],
)
def test_a_call_for_each_domain_has_the_gradients_of_both_at_half_the_memory(
    tmp_path, method, norm_mode, norms
):
    files, found = domains(tmp_path), {}
    settings = {"norm_mode": norm_mode, "domain_norms": norms, "adapt_statistics": norms == "domain"}
    for name, size in (("both", None), ("each", 32)):
        network = double_toy()
        more = {**settings, "micro_batch_size": size, "n_epochs": 1}
        with adaptation(tmp_path / name, method, files, network=network, **more) as (run, diary):
            summary = train(run)
            predicted = run.allocator(run.main_policy).model.step(
                run.table.selection(diary.reports[0].chosen)
            )
            found[name] = [*network.parameters(), *network.buffers()]
            found[f"{name} kept"] = summary["saved_bytes"]
            found[f"{name} scores"] = diary.reports[0].metrics["train"]
            found[f"{name} macs"] = predicted.macs
    for both, each in zip(found["both"], found["each"], strict=True):
        assert torch.allclose(both.double(), each.double(), rtol=1e-9, atol=1e-12)
    assert found["each kept"] == pytest.approx(found["both kept"] / 2, rel=0.01)
    assert found["each macs"] == found["both macs"]
    for key in ("train/top1", "train/loss"):
        assert found["both scores"][key] == pytest.approx(found["each scores"][key])


def test_a_part_that_is_no_domain_is_refused(tmp_path):
    files, size = domains(tmp_path), {"micro_batch_size": 32}
    assert "compares both domains; leave it out" in refusal(tmp_path, "dann", files, **size)
    assert "give domain_norms separate" in refusal(tmp_path, "mcc", files, norm_mode="train", **size)
    found = refusal(tmp_path, "mcc", files, norm_mode="frozen", micro_batch_size=16)
    assert "32 images of each domain in a process; give 32" in found


@pytest.mark.parametrize(
    ("method", "size"), [("mcc", 32), ("dann", None), ("shot", None), ("reweighted", 16)]
)
def test_a_choice_by_importance_keeps_within_a_budget_in_bytes(tmp_path, method, size):
    budget = 9_600_000 if method == "dann" else 900_000
    settings = {"neuron_selection": "auto", "initialization": "head", "norm_mode": "frozen"}
    settings |= {"budget": f"{budget}B", "ratio": None, "n_epochs": 3, "micro_batch_size": size}
    settings |= {"initialization": "random"} if method == "shot" else {}
    with adaptation(tmp_path / "run", method, domains(tmp_path), **settings) as (run, diary):
        train(run)
    last = diary.reports[-1]
    assert 0 < last.metrics["Budget"]["used"] <= budget
    assert last.chosen.any()
