"""Runs with a teacher: the loss, what trains, resume, processes, memory, and adaptation beside it."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from neq.config import MeanStd
from neq.distillation.loss import features_loss, logits_loss
from neq.distillation.task import Distillation
from neq.distillation.teacher import Teacher
from neq.networks.heads import HeadInputs, head_name
from neq.tasks import Classification, Task
from neq.tasks.classification import cross_entropy
from neq.training import predict, train
from neq.training.distributed import SINGLE_PROCESS
from neq.training.forward import NetworkForward
from neq.utils.eval_mode import eval_mode
from tests.adaptation.runs import adaptation, domains
from tests.toys import toy
from tests.training.distributed.test_collectives import double_toy
from tests.training.distributed.together import assert_two_are_one
from tests.training.runs import run_of, stopped_and_resumed

PLAIN = MeanStd(mean=(0, 0, 0), std=(1, 1, 1))
SETTINGS = {"neuron_selection": "random", "n_epochs": 2}
BOTH = {"distill_weight": 0.3, "temperature": 2.0, "feature_weight": 0.5}


def wide(dtype=torch.float32):
    """A teacher with other features than the toy, its norm's statistics uneven."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        body = (nn.Conv2d(3, 20, 3, 2), nn.BatchNorm2d(20), nn.ReLU(), nn.Dropout(0.5))
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10)).to(dtype)


def inputs_of(network):
    return HeadInputs(network.get_submodule(head_name(network)))


@contextmanager
def distilled(folder, processes=SINGLE_PROCESS, network=None, teacher=None, **settings):
    """A run with a teacher that lies in no file."""
    with run_of(folder, processes, network, **settings) as (run, diary):
        of_run = Teacher(teacher or wide(next(run.network.parameters()).dtype), PLAIN, PLAIN)
        inputs = SimpleNamespace(config=run.config, device=run.device, network=run.network, data=run.data)
        object.__setattr__(run, "task", Distillation(run.task, of_run, inputs))
        yield run, diary


@pytest.mark.slow
@pytest.mark.parametrize("train_head", [True, False])
def test_the_loss_is_the_sum_of_its_terms_and_the_teacher_stays_as_it_is(tmp_path, train_head):
    teacher = wide(torch.float64)
    settings = {**SETTINGS, **BOTH, "train_head": train_head}
    with distilled(tmp_path, network=double_toy(), teacher=teacher, **settings) as (run, _):
        before = [value.clone() for value in teacher.state_dict().values()]
        images, labels = batch = next(run.task.batches(0, 0))
        images = images.double()
        run.network.train()
        output = run.task.step(NetworkForward(run.network, "fp32"), (images, labels))
        with inputs_of(run.network) as kept, torch.no_grad():
            student = run.network(images)
        with inputs_of(teacher) as of_teacher, torch.no_grad():
            assert not teacher.training
            taught = teacher(images)
        projected = kept.found[0] @ run.task._projection.weight.T
        expected = (
            0.7 * cross_entropy(student, labels)
            + 0.3 * logits_loss(student, taught, 2.0)
            + 0.5 * features_loss(projected, of_teacher.found[0])
        )
        torch.testing.assert_close(output.loss, expected)
        assert projected.shape == (len(batch[1]), 20)
        train(run)
        assert all(map(torch.equal, before, teacher.state_dict().values()))
        assert all(parameter.grad is None for parameter in teacher.parameters())
        assert not any(module.training for module in teacher.modules())


@pytest.mark.slow
def test_the_features_of_a_frozen_head_and_of_a_plan_are_those_of_the_network(tmp_path):
    """A plan runs a stand-in in place of the head; the features come from its hooks."""
    for train_head in (True, False):
        settings = {**SETTINGS, **BOTH, "train_head": train_head, "distill_weight": 0.0}
        with distilled(tmp_path / str(train_head), **settings) as (run, _):
            weight = run.task._projection.weight.detach().clone()
            train(run)
            assert not torch.equal(run.task._projection.weight, weight)


def test_alone_the_teacher_teaches_what_it_knows(tmp_path):
    teacher = toy(3, torch.float32, classes=10)
    settings = {**SETTINGS, "distill_weight": 1.0, "norm_mode": "train", "ratio": 1}
    with distilled(tmp_path, teacher=teacher, **settings) as (run, diary):
        train(run)
        losses = [report.metrics["train"]["train/loss"] for report in diary.reports]
        assert losses[1] < 0.5 * losses[0]


def outcome(folder, stop=None, **settings):
    """Summary, metrics and tensors of a run that is stopped after a step and resumed."""
    summary, metrics, run = stopped_and_resumed(lambda: distilled(folder, **settings), stop)
    return summary, metrics, [*run.network.state_dict().values(), *run.task.extra_parameters().values()]


@pytest.mark.slow
def test_it_resumes_bit_for_bit_in_mid_epoch(tmp_path):
    settings = {**SETTINGS, **BOTH, "mixup": 0.2}
    whole = outcome(tmp_path / "whole", **settings)
    parts = outcome(tmp_path / "parts", (1, 17), **settings)
    assert parts[:2] == whole[:2]
    assert all(map(torch.equal, parts[2], whole[2]))


@pytest.mark.slow
def test_micro_batches_change_nothing_but_the_last_digits(tmp_path):
    found = []
    for size in (None, 12):
        settings = {**SETTINGS, **BOTH, "n_epochs": 1, "norm_mode": "frozen", "micro_batch_size": size}
        with distilled(tmp_path / str(size), network=double_toy(), **settings) as (run, _):
            train(run)
            found.append([*run.network.parameters(), *run.task.extra_parameters().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def trained_together(folder, processes=SINGLE_PROCESS):
    settings = {**SETTINGS, **BOTH, "n_epochs": 1, "norm_mode": "frozen", "base_batch_size": 33}
    with distilled(folder, processes, double_toy(), **settings) as (run, _):
        train(run)
        return [*run.network.parameters(), *run.task.extra_parameters().values()]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    assert_two_are_one(trained_together, tmp_path)


@pytest.mark.slow
def test_the_prediction_counts_the_teacher_and_a_budget_in_bytes_its_projection(tmp_path):
    settings = {**SETTINGS, "budget": "100kB"}
    with run_of(tmp_path / "plain", **settings) as (run, _):
        plain, base = predict(run), run.allocator(run.policy(0)).costs.base
    with distilled(tmp_path / "taught", **settings, feature_weight=1.0) as (run, diary):
        teacher, width = run.task.teacher, 16 * 20
        weights = sum(tensor.nbytes for tensor in teacher.network.state_dict().values())
        held = teacher.held_bytes(32, 12)
        # A forward pass holds at least what its widest module reads and writes.
        assert held - weights >= 4 * 32 * 20 * 5 * 5 * 2
        assert predict(run).weights - plain.weights == held + 4 * width
        taught = run.allocator(run.policy(0)).costs.base
        # The projection's gradient and momentum; its input, its output and the teacher's features.
        assert taught - base == 2 * 4 * width + 4 * 32 * (16 + 20 + 20)
        train(run)
    assert all(report.metrics["Budget"]["used"] <= 100_000 for report in diary.reports)


@pytest.mark.parametrize("sharpness", [None, 0.05])
def test_beside_an_adaptation_the_teacher_sees_the_images_of_both_domains(tmp_path, sharpness):
    settings = {**BOTH, "n_epochs": 1, "sharpness_radius": sharpness}
    with adaptation(tmp_path, "mcc", domains(tmp_path), **settings) as (run, diary):
        teacher = Teacher(wide(), PLAIN, PLAIN)
        seen, real = [], teacher.network.forward
        teacher.network.forward = lambda x: (seen.append(len(x)), real(x))[1]
        inputs = SimpleNamespace(config=run.config, device=run.device, network=run.network, data=run.data)
        task = Distillation(run.task, teacher, inputs)
        assert task.passes(run.config) == ((2,) if sharpness is None else (1, 2))
        object.__setattr__(run, "task", task)
        seen.clear()
        batch = next(run.task.batches(0, 0))
        train(run)
        of_a_step = {len(batch.images)} if sharpness is None else {len(batch.labels), len(batch.images)}
        assert set(seen) == of_a_step
        assert len(diary.reports) == 1


def test_images_are_normalized_as_the_teacher_wants_them():
    given = MeanStd(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    own = MeanStd(mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    pixels = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))

    def normalized(how):
        mean, std = (torch.tensor(each)[:, None, None] for each in (how.mean, how.std))
        return (pixels - mean) / std

    network = wide()
    found, _ = Teacher(network, own, given)(normalized(given))
    with eval_mode(network), torch.no_grad():
        expected = network(normalized(own))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(network(normalized(given)), expected, atol=1e-2)


def test_all_that_a_task_may_define_is_that_of_the_task_beside(tmp_path):
    with distilled(tmp_path, **SETTINGS) as (run, _):
        classes = {
            "of_run",
            "prepared",
            "start_weights",
        }  # asked of the objective's class, before there is a task
        methods = {name for name, value in vars(Task).items() if callable(value) and name[0] != "_"}
        assert methods - classes <= vars(Distillation).keys()
        attributes = Task.__annotations__.keys()
        assert attributes <= vars(run.task).keys()


def test_the_task_beside_keeps_its_name_for_scores_and_batches(tmp_path):
    with distilled(tmp_path, **SETTINGS, micro_batch_size=8) as (run, _):
        assert isinstance(run.task.task, Classification)
        assert (run.task.best_by, run.task.has_micro_batches) == ("top1", True)
        run.check_step()
