"""A task's own parameters and state: trained, averaged, saved, and counted."""

from functools import partial
from itertools import islice

import pytest
import torch
from torch import nn

from neq.budget import marginal_costs
from neq.tasks import Classification, StepOutput, Task, add_counts
from neq.tasks.classification import count_hits, cross_entropy
from neq.training import TrainingDiverged, predict, restore, train
from neq.training.context import Progress
from neq.training.distributed import SINGLE_PROCESS
from neq.utils.errors import UserError
from tests.training.distributed.test_collectives import double_toy
from tests.training.distributed.together import assert_two_are_one
from tests.training.runs import run_of, stopped_and_resumed

SETTINGS = {"neuron_selection": "random", "n_epochs": 2}
TOGETHER = {**SETTINGS, "norm_mode": "frozen", "base_batch_size": 33}
EXTRA_BYTES = 110 * 4


class Calibrated(Classification):
    """Classification by a second layer behind the network's outputs, and a count of steps as its state."""

    def __init__(self, data, device, dtype=torch.float32):
        super().__init__(data, device)
        self.layer = nn.Linear(10, 10).to(dtype)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(10))
            self.layer.bias.zero_()
        self.steps = 0

    def step(self, forward, batch):
        images, labels = batch
        outputs = self.layer(forward(images))
        self.steps += 1
        return StepOutput(cross_entropy(outputs, labels), count_hits(outputs.detach(), labels))

    def extra_parameters(self):
        return dict(self.layer.named_parameters())

    def state(self):
        return {"steps": self.steps}

    def load_state(self, state):
        self.steps = state["steps"]


def outcome(folder, stop=None, **settings):
    """Summary, metrics, weights and task parameters of a run that is stopped after a step and resumed."""
    summary, metrics, run = stopped_and_resumed(lambda: run_of(folder, learned=Calibrated, **settings), stop)
    weights = [*run.network.state_dict().values(), *run.task.extra_parameters().values()]
    return summary, metrics, weights, run


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_its_parameters_train_and_resume_bit_for_bit(tmp_path, optimizer):
    settings = {**SETTINGS, "optimizer_name": optimizer, "base_lr": 0.01}
    whole = outcome(tmp_path / "whole", **settings)
    assert not torch.equal(whole[3].task.layer.weight, torch.eye(10))
    assert whole[3].task.steps == 70
    for stop in ((0, 34), (1, 17)):
        parts = outcome(tmp_path / f"{stop}", stop, **settings)
        assert parts[:2] == whole[:2]
        assert all(map(torch.equal, parts[2], whole[2]))
        assert parts[3].task.steps == 70


def test_a_checkpoint_of_another_task_is_refused(tmp_path):
    with run_of(tmp_path, learned=Calibrated, **SETTINGS) as (run, _):
        train(run)
        state = run.checkpoints.load_last()
        with pytest.raises(UserError, match="the task has other parameters"):
            restore(run, {**state, "task": {"parameters": {}, "state": {}}})
    with run_of(tmp_path, **SETTINGS) as (run, _), pytest.raises(UserError, match="not one of this run"):
        restore(run, state)
    with run_of(tmp_path, **SETTINGS) as (run, _), pytest.raises(ValueError, match=r"no state.* has steps"):
        run.task.load_state({"steps": 1})


def test_its_parameters_count_in_the_prediction_and_in_a_budget_in_bytes(tmp_path):
    found = {}
    for learned in (Classification, Calibrated):
        with run_of(tmp_path / learned.__name__, learned=learned, **SETTINGS) as (run, _):
            model = run.allocator(run.policy(0)).model
            found[learned] = (
                predict(run),
                {unit: marginal_costs(model, unit).base for unit in ("bytes", "macs")},
            )
    plain, extra = found[Classification], found[Calibrated]
    assert extra[0].weights - plain[0].weights == EXTRA_BYTES
    assert extra[0].gradients - plain[0].gradients == EXTRA_BYTES
    assert extra[0].optimizer - plain[0].optimizer == EXTRA_BYTES  # momentum
    assert extra[1]["bytes"] - plain[1]["bytes"] == 2 * EXTRA_BYTES
    assert extra[1]["macs"] == plain[1]["macs"]


def test_what_its_modules_keep_counts_in_a_budget_in_bytes(tmp_path):
    class Keeping(Classification):
        extra_saved_bytes = 1000

    settings = {**SETTINGS, "budget": "100kB"}
    with run_of(tmp_path / "plain", **settings) as (run, _):
        plain = run.allocator(run.policy(0)).costs
    with run_of(tmp_path / "keeping", learned=Keeping, **settings) as (run, _):
        keeping = run.allocator(run.policy(0)).costs
    assert keeping.base - plain.base == 1000
    for name in ("neuron", "opening", "depth"):
        assert torch.equal(getattr(keeping, name), getattr(plain, name))


def test_its_parameters_are_checked_to_be_finite(tmp_path):
    with run_of(tmp_path, learned=Calibrated, **SETTINGS) as (run, diary):

        def spoil(epoch, number, steps):
            if number == 34:
                run.task.layer.bias.data[0] = float("inf")

        diary.step = spoil
        with pytest.raises(TrainingDiverged, match="no longer finite in epoch 0"):
            train(run)


def trained_together(folder, processes=SINGLE_PROCESS):
    learned = partial(Calibrated, dtype=torch.float64)
    with run_of(folder, processes, double_toy(), learned, **TOGETHER) as (run, _):
        train(run)
        return [*run.network.parameters(), *run.task.extra_parameters().values()]


@pytest.mark.slow
def test_two_processes_train_them_as_one(tmp_path):
    assert_two_are_one(trained_together, tmp_path)


def test_a_task_that_lacks_a_part_cannot_be_made():
    class Half(Task):
        def step(self, forward, batch):
            raise NotImplementedError

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_counts_add_up():
    totals = add_counts({}, {"images": 3, "loss": torch.tensor(1.5)})
    totals = add_counts(totals, {"images": 2, "loss": torch.tensor(0.5)})
    assert totals["images"] == 5
    assert totals["loss"].item() == 2


def test_progress_without_a_task_state_is_read():
    state = Progress().state()
    del state["task_optimizer"]
    assert Progress.of_state(state, torch.device("cpu")).task_optimizer == {}


class WithoutScore(Classification):
    best_by = "top5"


class TooManyForwards(Classification):
    def step(self, forward, batch):
        forward(batch[0])
        return super().step(forward, batch)


class WithoutGraph(Classification):
    def step(self, forward, batch):
        output = super().step(forward, batch)
        return StepOutput(output.loss.detach(), output.counts)


class TooFewBatches(Classification):
    def batches(self, epoch, start):
        return islice(super().batches(epoch, start), 2)


class TooManyBatches(Classification):
    def __init__(self, data, device):
        super().__init__(data, device)
        self.steps_per_epoch -= 1


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        (WithoutScore, "chooses the best epoch by 'top5', but its scores are top1, loss"),
        (TooManyForwards, "calls forward 2 times in a step, but its forwards is 1"),
        (WithoutGraph, "the loss of task WithoutGraph has no graph"),
        (TooFewBatches, "yields 2 of its 35 batches in epoch 0"),
        (TooManyBatches, "yields more than its 34 batches in epoch 0"),
    ],
)
def test_a_task_that_breaks_its_protocol_is_named(tmp_path, task, problem):
    with (
        run_of(tmp_path, learned=task, **{**SETTINGS, "n_epochs": 1}) as (run, _),
        pytest.raises(ValueError, match=problem),
    ):
        train(run)
