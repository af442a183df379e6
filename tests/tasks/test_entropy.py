"""TENT, statistics alone and the source: what trains, on which statistics, and what is counted."""

import copy
import math

import pytest
import torch
from torch import nn

from neq.backward import Plan, has_draws, stop_draws
from neq.config import OBJECTIVES, resolve
from neq.networks.neurons import NORMS, neuron_table
from neq.tasks import TaskInputs, task_class
from neq.tasks.classification import count_hits
from neq.tasks.entropy import Entropy, entropy
from neq.training import train
from neq.training.evaluation import evaluate
from neq.utils.errors import UserError
from tests.toys import SHAPE, batch, toy
from tests.training.distributed.test_collectives import double_toy
from tests.training.distributed.together import ended, start
from tests.training.runs import run_of, stopped_and_resumed

# What `run_of` gives beside, which would go before what the objective brings.
PLAIN = {
    **{key: OBJECTIVES["tent"].defaults[key] for key in ("n_epochs", "base_lr", "weight_decay")},
    "initialization": "none",
}
TENT = {**PLAIN, "objective": "tent", "base_batch_size": 128}


def affines(network):
    """The scales and shifts of norms, by name."""
    return {
        f"{name}.{key}": parameter
        for name, module in network.named_modules()
        if isinstance(module, NORMS)
        for key, parameter in module.named_parameters(recurse=False)
    }


def values(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_entropy_by_hand():
    outputs = torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.float64).log()
    expected = torch.tensor([0.562335144619, math.log(2)], dtype=torch.float64)
    torch.testing.assert_close(entropy(outputs), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(entropy(outputs + 7), expected, rtol=0, atol=1e-12)
    assert entropy(outputs.bfloat16()).dtype == torch.float32


def test_gradients_are_those_of_autograd_and_of_norms_alone():
    images, _ = batch(size=8)
    mine, theirs = toy(), toy().train()
    plan = Plan(mine, neuron_table(mine, SHAPE), {}, "train", train_head=False)
    entropy(plan(images)).mean().backward()
    entropy(theirs(images)).mean().backward()
    expected = affines(theirs)
    assert dict(plan.named_parameters()).keys() == expected.keys()
    for name, parameter in plan.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-9, atol=1e-12)
    assert all(p.grad is None for name, p in mine.named_parameters() if name not in expected)


def by_hand(network, batches, trains):
    """Online accuracy in per cent of TENT in plain torch; the network is changed."""
    network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    learned = list(affines(network).values())
    optimizer = torch.optim.Adam(learned, lr=1e-3)
    for parameter in learned:
        parameter.requires_grad_(trains)
    images_seen = hits = 0
    for images, labels in batches:
        outputs = network(images)
        images_seen, hits = images_seen + len(labels), hits + int(count_hits(outputs, labels)["hits"])
        if trains:
            entropy(outputs).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return 100 * hits / images_seen


@pytest.mark.parametrize("objective", ["tent", "statistics"])
def test_an_epoch_is_that_of_plain_torch_and_counts_predictions_before_the_step(tmp_path, objective):
    with run_of(tmp_path, network=double_toy(), **{**TENT, "objective": objective}) as (run, diary):
        reference, before = copy.deepcopy(run.network), values(run.network)
        online = by_hand(reference, run.task.batches(0, 0), trains=objective == "tent")
        summary = train(run)
        after = values(run.network)
    assert diary.reports[0].metrics["train"]["train/top1"] == pytest.approx(online)
    for name, tensor in values(reference).items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-6, atol=1e-8)
    learned = affines(run.network) if objective == "tent" else {}
    statistics = [name for name in before if ".running_" in name or "num_batches" in name]
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) is (name not in learned and name not in statistics)
    trained = summary["trained_beside_max"]
    assert trained == {"biases": 0, "norms": sum(map(torch.numel, learned.values())), "head": 0}
    assert summary["saved_bytes"] == run.allocator(run.main_policy).model.step({}).saved_bytes
    assert bool(summary["saved_bytes"]) is (objective == "tent")


def test_the_source_is_left_as_it_is(tmp_path):
    with run_of(tmp_path, **{**TENT, "objective": "source"}) as (run, diary):
        before, source = values(run.network), copy.deepcopy(run.network).eval()
        counted = [count_hits(source(images), labels) for images, labels in run.task.batches(0, 0)]
        train(run)
        assert all(torch.equal(before[name], tensor) for name, tensor in values(run.network).items())
    hits = sum(int(each["hits"]) for each in counted)
    online = 100 * hits / sum(each["images"] for each in counted)
    assert diary.reports[0].metrics["train"]["train/top1"] == pytest.approx(online)


def test_an_evaluation_uses_the_statistics_of_its_batches_and_keeps_the_running_ones(tmp_path):
    with run_of(tmp_path, network=double_toy(), **TENT) as (run, _):
        before, modes = values(run.network), [module.training for module in run.network.modules()]
        found = evaluate(run, "test")
        assert all(torch.equal(before[name], tensor) for name, tensor in values(run.network).items())
        assert [module.training for module in run.network.modules()] == modes
        stock = copy.deepcopy(run.network).train()
        with torch.no_grad():
            outputs = [(stock(images), labels) for images, labels in run.data.whole_batches("test", 128)]
    hits = sum(int(count_hits(*each)["hits"]) for each in outputs)
    assert found["top1"] == pytest.approx(100 * hits / 360)
    mean = torch.cat([entropy(each) for each, _ in outputs]).mean()
    assert found["loss"] == pytest.approx(float(mean), rel=1e-6)


def outcome(folder, stop=None, **settings):
    """Summary, metrics and weights of a run that is stopped after a step and resumed."""
    summary, metrics, run = stopped_and_resumed(lambda: run_of(folder, **settings), stop)
    return summary, metrics, values(run.network)


@pytest.mark.parametrize(("objective", "stop"), [("tent", (0, 10)), ("tent", (1, 3)), ("statistics", (0, 4))])
def test_it_resumes_bit_for_bit(tmp_path, objective, stop):
    settings = {**TENT, "objective": objective, "n_epochs": 2}
    whole, parts = outcome(tmp_path / "whole", **settings), outcome(tmp_path / "parts", stop, **settings)
    assert parts[:2] == whole[:2]
    assert all(torch.equal(tensor, whole[2][name]) for name, tensor in parts[2].items())


def test_micro_batches_change_nothing_with_ghost_groups(tmp_path):
    settings = {**TENT, "ghost_batch_size": 32}
    found = []
    for name, more in {"whole": {}, "parts": {"micro_batch_size": 32}}.items():
        with run_of(tmp_path / name, network=double_toy(), **settings, **more) as (run, diary):
            train(run)
            found.append((diary.reports[0].metrics["train"]["train/top1"], values(run.network)))
    assert found[0][0] == found[1][0]
    for name, tensor in found[0][1].items():
        if not name.endswith("num_batches_tracked"):  # which counts calls
            torch.testing.assert_close(found[1][1][name], tensor, rtol=1e-6, atol=1e-9)


WORKER = """
import sys, torch
from pathlib import Path
from neq.training.distributed.process_group import process_group
from neq.training import train
from tests.tasks.test_entropy import TOGETHER, double_toy, run_of

torch.set_num_threads(1)
with process_group() as processes:
    with run_of(Path(sys.argv[1], "run"), processes, double_toy(), **TOGETHER) as (run, diary):
        train(run)
        scores = {split: diary.reports[0].metrics[split] for split in ("train", "test")}
        torch.save((scores, run.network.state_dict()), f"{sys.argv[1]}/{processes.rank}.pt")
"""
# Neither the batch nor the test images divide by two.
TOGETHER = {**TENT, "base_batch_size": 33}


@pytest.mark.slow
def test_two_processes_adapt_as_one(tmp_path):
    for code, _, error in ended(start(2, WORKER, str(tmp_path))):
        assert code == 0, error
    with run_of(tmp_path / "one", network=double_toy(), **TOGETHER) as (run, diary):
        train(run)
    for rank in range(2):
        scores, weights = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for split, found in scores.items():
            assert found == pytest.approx(diary.reports[0].metrics[split], rel=1e-6)
        for name, tensor in run.network.state_dict().items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-7, atol=1e-9)


class Dropping(nn.Sequential):
    """A norm, dropout and a head."""

    def __init__(self, norm):
        super().__init__(nn.Conv2d(3, 8, 3), norm, nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 10)


def test_the_network_is_adapted_without_dropout():
    network = nn.Sequential(nn.Dropout2d(0.3), nn.MultiheadAttention(8, 2, dropout=0.2), nn.AlphaDropout())
    stop_draws(network)
    assert has_draws(network)
    assert [network[0].p, network[1].dropout, network[2].p] == [0, 0, 0]
    found = Entropy.prepared(Dropping(nn.BatchNorm2d(8)), None)
    x = torch.ones(2, 3, 8, 8)
    assert torch.equal(found.train()[2](x), x)


def made(network, notes, **settings):
    """The task of a network."""
    config = resolve({}, {**settings, "image_size": 12}).config
    task = task_class(config.objective)
    inputs = TaskInputs(config, FakeData(), torch.device("cpu"), network, lambda settings: None, notes.append)
    return task.of_run(inputs)


class FakeData:
    steps_per_epoch, share = 3, 1.0


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"base_batch_size": 31}, "batch norms see 31 images at a time"),
        ({"base_batch_size": 64, "micro_batch_size": 16}, "batch norms see 16 images at a time"),
        ({"base_batch_size": 64, "micro_batch_size": 16, "ghost_batch_size": 16}, "see 16 images"),
        ({"base_batch_size": 64, "n_epochs": 3}, "may collapse"),
    ],
)
def test_a_note_names_what_harms_tent(settings, note):
    notes = []
    made(Dropping(nn.BatchNorm2d(8)), notes, objective="tent", **settings)
    assert len(notes) == 1
    assert note in notes[0]


@pytest.mark.parametrize(
    "settings", [{}, {"micro_batch_size": 16, "ghost_batch_size": 32}, {"objective": "source"}]
)
def test_there_is_no_note_where_nothing_harms(settings):
    notes = []
    made(Dropping(nn.BatchNorm2d(8)), notes, **{"objective": "tent", "base_batch_size": 64, **settings})
    assert notes == []


def test_a_network_without_batch_norm_has_no_statistics_to_adapt():
    notes, network = [], Dropping(nn.GroupNorm(2, 8))
    made(network, notes, objective="tent")
    assert "no statistics to adapt" in notes[0]
    with pytest.raises(UserError, match=r"'statistics' changes nothing.*take source"):
        made(network, notes, objective="statistics")


def test_a_network_without_norms_has_nothing_to_train(tmp_path):
    reason = "nothing of mcunet-in0 trains with neuron_selection 'none'"
    with (
        run_of(tmp_path, network=Dropping(nn.Identity()), **TENT) as (run, _),
        pytest.raises(UserError, match=reason),
    ):
        run.check(run.main_policy)
