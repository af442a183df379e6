"""What must hold on every device: the same tests on the CPU and, where there is one, on a GPU."""

import copy
import math

import pytest
import torch
from torch import nn

from neq.backward import Plan
from neq.cli import main
from neq.networks.neurons import neuron_table
from neq.runs import read_metrics
from neq.selection import previous_values, similarity
from neq.training.profiling import SavedBytes
from tests.toys import toy

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])


def batch(device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(6, 3, 12, 12, generator=generator, dtype=torch.float64).to(device, dtype)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(6, device=device) % 4


def network_and_table(device, dtype=torch.float32):
    network = toy().to(device, dtype).to(memory_format=torch.channels_last)
    return network, neuron_table(network, (3, 12, 12))


def every_third(table):
    return {layer.name: torch.arange(0, layer.neurons, 3) for layer in table.layers}


@on_every_device
@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
def test_gradients_are_those_of_stock_pytorch(device, norm_mode):
    network, table = network_and_table(device, torch.float64)
    stock = copy.deepcopy(network).train()
    if norm_mode == "frozen":
        for module in stock.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    plan = Plan(network, table, every_third(table), norm_mode)
    images, labels = batch(device, torch.float64)
    for model in (stock, plan):
        nn.functional.cross_entropy(model(images), labels).backward()
    expected = {name: parameter.grad for name, parameter in stock.named_parameters()}
    found = dict(plan.named_parameters())
    assert found
    for name, leaf in found.items():
        assert leaf.grad is not None
        assert leaf.device.type == device
        assert torch.allclose(leaf.grad, plan.parts[name].take(expected[name]), rtol=1e-9, atol=1e-12), name


@on_every_device
def test_less_is_saved_under_frozen_norms(device):
    network, table = network_and_table(device)
    images, labels = batch(device)
    kept = []
    for norm_mode in ("train", "frozen"):
        model = Plan(network, table, every_third(table), norm_mode)
        trained = [*network.parameters(), *network.buffers(), *model.parameters()]
        saved = SavedBytes([*trained, images])
        with saved.counting():
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        kept.append(saved.total)
    assert 0 < kept[1] < kept[0]


@on_every_device
def test_velocities_see_what_a_step_changed(device):
    network, table = network_and_table(device)
    images, labels = batch(device)
    plan = Plan(network, table, every_third(table), "frozen")
    previous = previous_values(network, plan.parts)
    unchanged = similarity(network, table, images, previous).cpu()
    assert torch.allclose(unchanged, torch.ones_like(unchanged))
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.5)
    nn.functional.cross_entropy(plan(images), labels).backward()
    optimizer.step()
    plan.write_back()
    changed = similarity(network, table, images, previous).cpu()
    assert bool((changed < 1 - 1e-6).any())
    assert bool(changed.isfinite().all())


@on_every_device
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_trains(device, precision, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--image_size", "16", "--base_batch_size", "128", "--n_epochs", "1", "--warmup_epochs", "1"]
    flags += ["--device", device, "--precision", precision, "--run_dir", "run"]
    assert main(["train", *flags]) == 0
    losses = [line["train"]["train/loss"] for line in read_metrics(tmp_path / "run")]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
