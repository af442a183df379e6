"""Running statistics of each domain: gradients as in stock torch, resuming, and what is refused."""

import copy
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from neq.adaptation.domain_norms import SourceStatistics
from neq.adaptation.mcc import class_confusion
from neq.adaptation.statistics import adapt_statistics
from neq.backward import Plan
from neq.networks.build import build_network
from neq.networks.neurons import neuron_table
from neq.training.forward import NetworkForward
from tests.adaptation.runs import adaptation, domains, refusal
from tests.training.runs import stopped_and_resumed

OWN = {"domain_norms": "domain"}


@pytest.mark.slow
@pytest.mark.parametrize("norm_mode", ["frozen", "train"])
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_gradients_and_statistics_are_those_of_two_networks_with_common_weights(name, norm_mode):
    torch.manual_seed(0)
    network = build_network(name, 4, 0, "none").double()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    labels = torch.tensor([0, 1, 2, 3])
    source, target = torch.randn(4, 3, 32, 32).double(), 0.5 + 2 * torch.randn(4, 3, 32, 32).double()
    first, second = copy.deepcopy(network), copy.deepcopy(network)
    adapt_statistics(first, [source])
    adapt_statistics(second, [target])
    # Stock torch: two networks whose parameters are the same tensors.
    for mine, shared in zip(second.modules(), first.modules(), strict=True):
        mine._parameters.update(shared._parameters)
    for each in (first, second):
        each.train(norm_mode == "train")
    F.cross_entropy(first(source), labels).add(class_confusion(second(target), 2.5)).backward()

    own = SourceStatistics(network)
    with own.used():
        adapt_statistics(network, [source])
    adapt_statistics(network, [target])
    table = neuron_table(network, (3, 32, 32))
    everything = {layer.name: range(layer.neurons) for layer in table.layers}
    plan = Plan(network, table, everything, norm_mode)
    with own.used():
        outputs = plan(source)
    F.cross_entropy(outputs, labels).add(class_confusion(plan(target), 2.5)).backward()
    expected = dict(first.named_parameters())
    for key, leaf in plan.named_parameters():
        assert torch.allclose(leaf.grad, expected[key].grad, rtol=1e-8, atol=1e-10), key
    for domain, found in ((second, network.state_dict()), (first, None)):
        if found is None:
            with own.used():
                found = copy.deepcopy(network.state_dict())
        for key, value in domain.named_buffers():
            assert torch.allclose(value, found[key], rtol=1e-10, atol=1e-12), key


def outcome(folder, files, stop=None, **settings):
    opened = partial(adaptation, folder, "mcc", files, **OWN, **settings)
    summary, _, run = stopped_and_resumed(opened, stop)
    return summary, {**run.network.state_dict(), **run.task.state()}


@pytest.mark.slow
@pytest.mark.parametrize("norm_mode", ["frozen", "train"])
def test_a_run_resumes_bit_for_bit(tmp_path, norm_mode):
    files = domains(tmp_path, images=100)
    settings = {"norm_mode": norm_mode, "adapt_statistics": True}
    whole = outcome(tmp_path / "whole", files, **settings)
    for stop in ((0, 2), (1, 1)):
        parts = outcome(tmp_path / f"{stop}", files, stop, **settings)
        assert parts[0] == whole[0]
        assert all(torch.equal(value, whole[1][name]) for name, value in parts[1].items())


@torch.no_grad()
def test_the_source_is_validated_on_its_own_statistics(tmp_path):
    settings = {**OWN, "norm_mode": "frozen", "adapt_statistics": True}
    settings |= {"select_by": "source", "use_validation": True}
    with adaptation(tmp_path, "mcc", domains(tmp_path), **settings) as (run, _):
        next(run.task.batches(0, 0))
        network = run.network.eval()
        forward = NetworkForward(network, "fp32")
        found = sum(float(counts["loss"]) for counts in run.task.evaluate(forward, "validation"))
        adapt_statistics(network, run.task.domains.source_images())
        plain = sum(float(counts["loss"]) for counts in run.task._source.evaluate(forward, "validation"))
        assert found == pytest.approx(plain)


def test_what_two_sets_of_statistics_do_not_fit_is_refused(tmp_path):
    files = domains(tmp_path)
    frozen = {**OWN, "norm_mode": "frozen"}
    assert "without adapt_statistics" in refusal(tmp_path, "mcc", files, **frozen)
    segments = {**frozen, "adapt_statistics": True, "checkpoint_segments": 2}
    assert "leave checkpoint_segments out" in refusal(tmp_path, "mcc", files, **segments)

    class Half:
        rank, count = 0, 2

    assert "several processes; start one" in refusal(tmp_path, "mcc", files, Half(), norm_mode="train", **OWN)
