"""Classifiers of codes."""

import pytest
import torch
import torch.nn.functional as F

from neq.backward import Plan
from neq.int8 import Conv, Int8Conv, Int8Network, attach, model_kilobytes, read_int8, write_int8
from neq.int8.head import quantize_head
from neq.int8.onnx_file import onnx_model
from neq.networks import neuron_table
from neq.networks.heads import head_name, replace_head
from neq.networks.recipe import named_recipe, read_recipe, write_recipe
from neq.results.best_network import load_best
from tests.int8.reference import reference_conv
from tests.int8.test_training import trained
from tests.int8.toys import description, images

SHAPE = (3, 16, 16)


def toy(folder, quantized=True):
    """A network with a new classifier of 7 classes."""
    made = Int8Network(description(folder))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        replace_head(made, 7)
    return quantize_head(made) if quantized else made


def test_it_computes_what_the_one_in_floating_point_does(tmp_path):
    with torch.no_grad():
        ours, floating = toy(tmp_path)(images()), toy(tmp_path, quantized=False)(images())
    # Half a step of the logits, and half a step of the weights on 8 features of up to 10.
    step = 4 / 127 / 8**0.5
    assert float((ours - floating).abs().max()) <= 1 / 12 + 8 * 10.5 * step / 2
    torch.testing.assert_close(ours * 6, (ours * 6).round())
    assert float(floating.abs().max()) > 0.3


def test_it_always_trains_by_the_straight_through_reference_and_is_scaled(tmp_path):
    network = toy(tmp_path)
    table = neuron_table(network, SHAPE, head=head_name(network))
    assert (table.head, len(table.layers)) == ("classifier", 6)
    plan = Plan(network, table, {})
    assert {name for name, _ in plan.named_parameters()} == {"classifier.weight", "classifier.bias"}
    conv, (pooled, _) = network.describe().head, network.steps[-1]
    found = {}
    network.get_submodule(pooled).register_forward_hook(lambda _, inputs, output: found.update(x=output))
    network(images())
    labels = torch.arange(4)
    classifier = network.get_submodule("classifier")
    leaves = [leaf.detach().double().requires_grad_() for leaf in classifier.parameters()]
    codes = reference_conv(found["x"].double(), *leaves, conv, network.quantization(pooled))
    F.cross_entropy(codes.flatten(1) / 6, labels).backward()
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.1)
    attach(optimizer, plan)
    before = classifier.codes()[0].clone()
    F.cross_entropy(plan(images()), labels).backward()
    for (_, leaf), right in zip(plan.named_parameters(), leaves, strict=True):
        torch.testing.assert_close(leaf.grad.double(), right.grad, rtol=1e-4, atol=1e-7)
    optimizer.step()
    scales = conv.scales.double()
    for name, right, scale in (
        ("classifier.weight", leaves[0], scales.view(-1, 1, 1, 1)),
        ("classifier.bias", leaves[1], scales * network.quantization(pooled).scale),
    ):
        grad = dict(plan.named_parameters())[name].grad.double()
        torch.testing.assert_close(grad, right.grad / scale**2, rtol=1e-4, atol=1e-3)
    assert (classifier.codes()[0] != before).any()


def test_it_is_written_read_and_built_again(tmp_path):
    network = toy(tmp_path)
    assert isinstance(network.describe().head, Conv)
    write_int8(tmp_path / "a.safetensors", network.describe())
    head = read_int8(tmp_path / "a.safetensors").head
    assert torch.equal(head.weight, network.describe().head.weight)
    recipe = named_recipe("int8:any", network, 7)
    write_recipe(tmp_path, recipe)
    again = read_recipe(tmp_path).build()
    again.load_state_dict(network.state_dict())
    assert isinstance(again.get_submodule("classifier"), Int8Conv)
    with torch.no_grad():
        assert torch.equal(again(images()), network(images()))


def test_the_published_memory_model_counts_it_by_its_features(tmp_path):
    for network in (toy(tmp_path), toy(tmp_path, quantized=False)):
        plan = Plan(network, neuron_table(network, SHAPE, head="classifier"), {})
        assert model_kilobytes(network, plan.parts, SHAPE) == 8 / 1024


def test_onnx_computes_its_codes(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    network = toy(tmp_path)
    session = onnxruntime.InferenceSession(onnx_model(network.describe(), 16).SerializeToString())
    (outputs,) = session.run(["logits"], {"images": images().numpy()})
    with torch.no_grad():
        assert float((torch.from_numpy(outputs) - network(images())).abs().max()) < 0.51  # three codes


@pytest.mark.slow
def test_a_run_trains_it_and_its_best_network_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--head", "quantized", "--neuron_selection", "head", "--initialization", "head", "--ratio", "0")
    weights, _ = trained(tmp_path / "run", *flags)
    assert weights["classifier.weight"].shape == (10, 160, 1, 1)
    best = load_best(tmp_path / "run").network
    assert isinstance(best.get_submodule("classifier"), Int8Conv)
    assert all(torch.equal(best.state_dict()[name], value) for name, value in weights.items())
    assert torch.equal(weights["classifier.scales"], torch.full((10,), 4 / 127 / 160**0.5))
    assert float(weights["classifier.weight"].abs().max()) <= 127
