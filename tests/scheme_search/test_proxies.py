"""Scores of parts without their runs; tests/training/test_importance.py measures what a pass keeps."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from neq.networks.neurons import neuron_table
from neq.runs.layout import SELECTION
from neq.runs.selection_file import save_selection, save_table
from neq.scheme_search import Measured, SchemeCosts, all_proxies, proxies, proxy_scores, search
from neq.scheme_search.costs import HEAD
from neq.selection import Importance
from neq.training import TrainingDiverged
from tests.scheme_search.searching import Stub, costs_of, every_scheme, fitted_head

SHARES = (0.5, 1.0)


def known(monkeypatch, *measured):
    """Makes the importance of neurons, float64 [N], what is given, one call after another."""
    left = iter(measured)
    monkeypatch.setattr(
        proxies, "importance_of", lambda run, epoch, criterion: Importance(next(left), torch.empty(0))
    )


def found_by_proxy(costs, folder):
    """What the search by gradient norms finds, and the short runs that it asked for."""
    measure = Stub(runs=[fitted_head(costs, folder)])
    return search(costs, measure, "proxies", SHARES, score=partial(proxy_scores, costs)), measure.asked


def gradient_norms(training, batches=10):
    """By stock autograd on a run's network, float64 [N]."""
    network, losses = training.network.eval(), []
    for images, labels in list(training.task.batches(0, 0))[:batches]:
        losses.append(F.cross_entropy(network(images), labels))
    layers = training.table.layers
    weights = [network.get_submodule(layer.name).weight for layer in layers]
    gradients = torch.autograd.grad(torch.stack(losses).mean(), weights)
    rows = (each.transpose(0, layer.axis).flatten(1) for each, layer in zip(gradients, layers, strict=True))
    return torch.cat([each.norm(dim=1) for each in rows]).double()


@pytest.mark.parametrize(
    ("unit", "ratio", "channels"),
    [("parameters", 0.3, "neuron"), ("macs", 0.5, "neuron"), ("parameters", 0.3, "input_channel")],
)
def test_the_scheme_holds_the_most_gradient_norm_of_all_within_the_budget(tmp_path, unit, ratio, channels):
    with costs_of(tmp_path, budget_unit=unit, ratio=ratio) as costs:
        table = neuron_table(costs.training.network, (3, 12, 12), unit=channels)
        costs = SchemeCosts(replace(costs.training, table=table))
        found, asked = found_by_proxy(costs, tmp_path / "head")
        expected = gradient_norms(costs.training)  # of the network with the fitted head
        within = [each for each in every_scheme(costs, [0], SHARES) if costs.used(each) <= costs.limit]
        best = max(float(expected[costs.chosen(each)].sum()) for each in within)
        assert found.choice.predicted == pytest.approx(100 * best / float(expected.sum()), rel=1e-4)
        assert float(expected[costs.chosen(found.choice.scheme)].sum()) == pytest.approx(best, rel=1e-4)
        assert found.choice.used == costs.used(found.choice.scheme) <= costs.limit
    assert asked == {"head": [HEAD]}
    assert (found.trained, found.proxy_correlations) == ([], {})


def test_a_part_scores_what_SU_would_update_of_it_mean_of_the_runs(tmp_path, monkeypatch):
    with costs_of(tmp_path, ratio=1.0) as costs:
        table, layer = costs.training.table, costs.convs[1]
        first = torch.arange(len(table), dtype=torch.float64)
        known(monkeypatch, first, first.flip(0) * 1e6)
        runs = [fitted_head(costs, tmp_path / name) for name in "ab"]
        head = Measured(50.0, 1.0, 40.0, tuple(map(str, runs)))
        scores = proxy_scores(costs, head, [(1, 0.5), (1, 1.0)], "fisher")["fisher"]
        weights = costs.training.network.get_submodule(layer.name).weight.flatten(1).norm(dim=1)
    mean = 50 * (first + first.flip(0)) / first.sum()  # each run counts as much, in per cent
    own, half = mean[table.slice_of(layer.name)], weights.topk(layer.neurons // 2).indices
    assert scores[1, 0.5] == pytest.approx(float(own[half].sum()))
    assert scores[1, 1.0] == pytest.approx(float(own.sum()))


def test_importance_of_any_size_chooses_the_same(tmp_path, monkeypatch):
    found = set()
    for number, scale in enumerate((0.0, 1e-12, 1e12)):
        with costs_of(tmp_path, ratio=0.4) as costs:
            known(monkeypatch, scale * (torch.arange(len(costs.training.table)) % 7).double())
            scheme = found_by_proxy(costs, tmp_path / f"{number}")[0].choice.scheme
        assert (scheme == HEAD) == (scale == 0)
        found.add(scheme)
    assert len(found) == 2


def test_velocity_is_that_of_an_epoch_of_random_neurons(tmp_path, monkeypatch):
    trained = []

    def run_training(config, runs):
        trained.append(config)
        return tmp_path

    monkeypatch.setattr(proxies, "run_training", run_training)
    with costs_of(tmp_path, ratio=0.5, n_epochs=7, warmup_epochs=2) as costs:
        table = costs.training.table
        save_table(tmp_path / SELECTION, table)
        velocity = -torch.arange(len(table), dtype=torch.float64)
        save_selection(
            tmp_path / SELECTION, SimpleNamespace(epoch=0, chosen=velocity < -3, velocity=velocity)
        )
        scores = proxies.velocity_scores(costs, [(2, 1.0)], tmp_path / "runs")
    neq, run = trained[0].NEq_config, trained[0].run_config
    assert (neq.neuron_selection, neq.initialization, neq.ratio) == ("velocity", "random", 0.5)
    assert (run.n_epochs, run.warmup_epochs, trained[0].resume) == (1, 0, True)
    place = table.slice_of(costs.convs[2].name)
    assert scores["velocity"] == {
        (2, 1.0): pytest.approx(100 * float(velocity[place].sum() / velocity.sum()))
    }


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, TrainingDiverged("the loss is nan")])
def test_what_cannot_be_measured_is_left_out_with_a_note(tmp_path, monkeypatch, error):
    """The network of the head's run was removed, or the epoch of velocity diverged."""

    def diverge(*arguments):
        raise error

    monkeypatch.setattr(proxies, "velocity_scores", diverge)
    notes = []
    with costs_of(tmp_path, ratio=1.0) as costs:
        folder = fitted_head(costs, tmp_path / "head")
        if error is None:
            (folder / "best.safetensors").unlink()
        head = Measured(50.0, 1.0, 40.0, (str(folder),))
        found = all_proxies(costs, head, [(1, 1.0)], tmp_path, notes.append)
    assert list(found) == ([] if error is None else list(proxies.CRITERIA))
    assert ("the loss is nan" if error else "best.safetensors") in notes[1]
