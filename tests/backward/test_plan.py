import copy
import itertools
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neq.backward import Plan
from neq.backward import plan as plan_module
from neq.budget.knapsack import MarginalCosts, fill_by_rank
from neq.networks.build import build_network
from neq.networks.neurons import neuron_table
from tests.toys import SHAPE, batch, toy


def some(table, share, seed=0):
    """A random selection of a share of the parameters."""
    scores = torch.rand(len(table), generator=torch.Generator().manual_seed(seed))
    return table.selection(
        fill_by_rank(
            scores, MarginalCosts.per_neuron(table.parameters), round(share * table.total_parameters)
        )
    )


def reference(network, norm_mode, frontier_norms=()):
    """A copy of the network that stock PyTorch trains in the same norm mode."""
    network = copy.deepcopy(network).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and norm_mode == "frozen":
            module.eval()
    return network


def assert_same_gradients(plan, network, images, labels, tolerance):
    F.cross_entropy(plan(images), labels).backward()
    F.cross_entropy(network(images), labels).backward()
    for name, leaf in plan.named_parameters():
        expected = network.get_parameter(name).grad
        channels = plan.parts[name].index
        if channels is not None:
            expected = expected[channels]
        assert (leaf.grad - expected).abs().max() <= tolerance * expected.abs().max().clamp_min(1e-30), name


@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
@pytest.mark.parametrize("share", [0, 0.05, 0.3, 0.8, 1])
def test_gradients_of_chosen_rows_are_those_of_the_full_backward(norm_mode, share):
    network = toy()
    table = neuron_table(network, SHAPE)
    stock = reference(network, norm_mode)
    plan = Plan(network, table, some(table, share), norm_mode)
    assert_same_gradients(plan, stock, *batch(), tolerance=1e-9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_gradients_of_random_convolutions(data):
    """Any geometry: groups, multipliers, strides, dilations, padding, bias, uneven groups."""
    groups = data.draw(st.sampled_from([1, 2, 3, 6]), "groups")
    inputs = groups * data.draw(st.integers(1, 3), "inputs per group")
    outputs = groups * data.draw(st.integers(1, 3), "outputs per group")
    kernel = data.draw(st.sampled_from([1, (1, 3), 3, 5]), "kernel")
    padding = data.draw(st.sampled_from([0, 1, "same", "valid"]), "padding")
    stride = 1 if padding == "same" else data.draw(st.sampled_from([1, 2, (2, 1)]), "stride")
    mode = data.draw(st.sampled_from(["zeros", "reflect", "circular"]), "padding mode")
    dilation = data.draw(st.sampled_from([1, 2]), "dilation")
    bias = data.draw(st.booleans(), "bias")
    layout = data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last]), "layout")
    torch.manual_seed(data.draw(st.integers(0, 99), "seed"))
    network = (
        nn.Sequential(
            nn.Conv2d(3, inputs, 1),
            nn.Conv2d(
                inputs, outputs, kernel, stride, padding, dilation, groups, bias=bias, padding_mode=mode
            ),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * outputs, 5),
        )
        .double()
        .to(memory_format=layout)
    )
    images, labels = batch()
    images = images.contiguous(memory_format=layout)
    table = neuron_table(network, SHAPE)
    chosen = torch.rand(len(table)) < data.draw(st.sampled_from([0.2, 0.5, 0.9]), "share")
    stock = copy.deepcopy(network)
    plan = Plan(network, table, table.selection(chosen))
    assert_same_gradients(plan, stock, images, labels, tolerance=1e-9)


def small_vit(num_classes):
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=num_classes)


@pytest.mark.parametrize(
    "make",
    [
        torchvision.models.mobilenet_v2,
        torchvision.models.resnext50_32x4d,
        torchvision.models.mobilenet_v3_small,
        small_vit,
    ],
)
def test_gradients_on_real_networks(make):
    torch.manual_seed(0)
    network = make(num_classes=10).double()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
    table = neuron_table(network, (3, 32, 32))
    stock = reference(network, "train")
    plan = Plan(network, table, some(table, 0.2), "train")
    assert_same_gradients(plan, stock, torch.randn(3, 3, 32, 32).double(), torch.tensor([1, 2, 3]), 1e-9)


def gradients(model, network, images, labels):
    """All gradients of a model by the name of the network's parameter, rows in their place, as float64."""
    F.cross_entropy(model(images), labels).backward()
    if not isinstance(model, Plan):
        return {name: p.grad.double() for name, p in network.named_parameters() if p.grad is not None}
    return {name: leaf.grad.double() for name, leaf in model.named_parameters()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
@pytest.mark.parametrize(("fused", "tolerance"), [(False, 1e-5), (True, 1e-4)])
def test_gradients_in_float32(layout, norm_mode, fused, tolerance, monkeypatch):
    """On smooth activations: at a kink, a rounding error decides whether a whole gradient passes."""
    if not fused:
        monkeypatch.setattr(plan_module, "traced", lambda network, table: None)
    network = toy(dtype=torch.float32).to(memory_format=layout)
    network.act = nn.Tanh()
    images, labels = batch(dtype=torch.float32)
    images = images.contiguous(memory_format=layout)
    table = neuron_table(network, SHAPE)
    stock = reference(network, norm_mode)
    plan = Plan(network, table, some(table, 0.4), norm_mode)
    expected = gradients(stock, stock, images, labels)
    overall = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, found in gradients(plan, network, images, labels).items():
        right = plan.parts[name].take(expected[name])
        # A bias ahead of a norm on batch statistics has no gradient but rounding.
        assert (found - right).norm() <= tolerance * max(right.norm(), 1e-2 * overall), name


@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_float32_is_as_close_to_float64_as_stock_pytorch_is(norm_mode, layout):
    """A real network with its kinks, fused: the error is held against what stock float32 has itself."""
    torch.manual_seed(0)
    network = build_network("mcunet-in0", 5).to(memory_format=layout)
    images = torch.randn(8, 3, 48, 48).contiguous(memory_format=layout)
    labels = torch.arange(8) % 5
    with torch.no_grad():  # running statistics that fit
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        network.train()(images)
    table = neuron_table(network, (3, 48, 48))
    selection = some(table, 0.3)
    errors = []
    exact_net = copy.deepcopy(network).double()
    exact = Plan(exact_net, table, selection, norm_mode)
    right = gradients(exact, exact_net, images.double(), labels)
    overall = torch.stack([gradient.norm() for gradient in right.values()]).norm()
    stock = reference(network, norm_mode)
    plan = Plan(network, table, selection, norm_mode)
    for model, net in ((plan, network), (stock, stock)):
        found = gradients(model, net, images, labels)
        if model is stock:
            found = {name: plan.parts[name].take(found[name]) for name in right}
        errors.append(
            sorted(
                (found[name] - exactly).norm() / max(exactly.norm(), 1e-3 * overall)
                for name, exactly in right.items()
            )
        )
    ours, theirs = errors
    assert ours[len(ours) // 2] <= 3 * theirs[len(theirs) // 2] + 1e-6
    assert ours[-1] <= 0.05  # at a kink, a rounding error decides whether a gradient passes


def test_the_weight_gradient_is_computed_for_chosen_rows_only(monkeypatch):
    """Fault 1 of the published code: a full backward whose gradients are zeroed afterwards."""
    network = toy()
    table = neuron_table(network, SHAPE)
    selection = {"grouped": torch.tensor([1, 2, 9]), "pointwise": torch.tensor([4])}
    plan = Plan(network, table, selection)
    computed = []
    real = torch.ops.aten.convolution_backward

    def spy(grad_output, x, weight, *rest):
        if rest[-1][1]:
            computed.append(tuple(weight.shape))
        return real(grad_output, x, weight, *rest)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", spy)
    images, labels = batch()
    F.cross_entropy(plan(images), labels).backward()
    # One row of pointwise; of grouped, with 3 outputs a group, one in group 3 and two in group 0.
    assert computed == [(1, 24, 1, 1), (1, 2, 3, 3), (2, 2, 3, 3)]


def test_an_input_is_stored_only_where_a_row_is_chosen():
    """Fault 1: stock PyTorch stores the input of every convolution, frozen or not."""
    network = toy()
    table = neuron_table(network, SHAPE)
    images, labels = batch()

    def saved_shapes(model):
        shapes = []

        def pack(tensor):
            shapes.append(tuple(tensor.shape))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return shapes

    plan = Plan(network, table, {"depthwise": torch.tensor([0, 5])}, "frozen")
    maps = [shape for shape in saved_shapes(plan) if len(shape) == 4 and shape[0] == 6]
    # Channels 0 and 2 of depthwise's input (two outputs share one), and the activations behind it; nothing
    # below depthwise, and not pointwise's input.
    assert (6, 2, 6, 6) in maps
    assert (6, 8, 6, 6) not in maps
    assert (6, 12, 6, 6) not in maps
    assert (6, 24, 6, 6) not in maps  # the activation behind the addition keeps its bits
    stock = [shape for shape in saved_shapes(copy.deepcopy(network)) if len(shape) == 4 and shape[0] == 6]
    assert len(stock) > 3 * len(maps)


def test_nothing_below_the_earliest_chosen_layer_enters_the_graph():
    network = toy()
    table = neuron_table(network, SHAPE)
    seen = {}
    hook = network.norm3.register_forward_hook(lambda m, i, o: seen.update(norm3=o.requires_grad))
    plan = Plan(network, table, {"pointwise": torch.tensor([1])})
    plan(batch()[0])
    hook.remove()
    assert seen == {"norm3": False}


@pytest.mark.parametrize(
    ("norm_mode", "trained"),
    [("train", {"norm1", "norm2", "norm3"}), ("frontier", {"norm2", "norm3"}), ("frozen", set())],
)
def test_norm_modes_train_the_norms_they_name(norm_mode, trained):
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"grouped": torch.tensor([3])}, norm_mode)
    names = {name.partition(".")[0] for name, _ in plan.named_parameters()}
    assert names == {"grouped", "head"} | trained


def test_norm_modes_use_the_statistics_they_name():
    images, _ = batch()
    for norm_mode, moves in (("train", True), ("frontier", True), ("frozen", False)):
        network = toy()
        before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k or "tracked" in k}
        plan = Plan(network, neuron_table(network, SHAPE), {"pointwise": torch.tensor([3])}, norm_mode)
        stock = reference(network, norm_mode)
        assert torch.allclose(plan(images), stock(images), rtol=1e-12, atol=1e-12)
        now = network.state_dict()
        assert all(torch.equal(now[name], stock.state_dict()[name]) for name in before)
        assert any(not torch.equal(now[name], tensor) for name, tensor in before.items()) == moves


def test_bias_layers_train_their_norms_bias_when_norms_are_frozen():
    network = toy()
    table = neuron_table(network, SHAPE)
    layers = ("grouped", "depthwise", "pointwise")
    plan = Plan(network, table, {"depthwise": torch.tensor([1])}, "frozen", bias_layers=layers)
    names = {name for name, _ in plan.named_parameters()}
    assert names == {
        "norm2.bias", "norm3.bias", "depthwise.weight", "depthwise.bias", "pointwise.bias", "head.weight",
        "head.bias",
    }  # fmt: skip
    assert plan.parts["pointwise.bias"].is_whole
    assert_same_gradients(plan, reference(network, "frozen"), *batch(), tolerance=1e-9)


def test_a_chosen_neurons_bias_trains_with_it():
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"hidden": torch.tensor([2, 7])})
    leaves = dict(plan.named_parameters())
    assert leaves["hidden.weight"].shape == (2, 24)
    assert leaves["hidden.bias"].shape == (2,)
    assert plan.parts["hidden.bias"].index.tolist() == [2, 7]
    assert plan.trained_values()["biases"] == 2


def test_trained_values_are_counted_by_kind():
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"grouped": torch.tensor([3]), "pointwise": torch.tensor([1])})
    assert plan.trained_values() == {"weights": 18 + 24, "biases": 1, "norms": 2 * (12 + 24), "head": 85}


def test_write_back_reaches_the_plain_network_and_only_the_chosen_rows():
    network = toy()
    table = neuron_table(network, SHAPE)
    before = copy.deepcopy(network.state_dict())
    plan = Plan(network, table, {"grouped": torch.tensor([0, 11])}, "frozen")
    dict(plan.named_parameters())["grouped.weight"].data.add_(0)  # no step: nothing to write
    with torch.no_grad():
        dict(plan.named_parameters())["grouped.weight"].add_(1)
    plan.write_back()
    moved = (network.grouped.weight != before["grouped.weight"]).flatten(1).any(1)
    assert moved.nonzero().flatten().tolist() == [0, 11]
    del before["grouped.weight"]
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


def test_calling_the_plan_uses_the_stepped_rows_without_write_back():
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"stem": torch.tensor([0])})
    images, _ = batch()
    first = plan(images)
    with torch.no_grad():
        dict(plan.named_parameters())["stem.weight"].mul_(-3)
    assert not torch.equal(plan(images), first)


def test_the_plain_network_never_sees_the_plan():
    network = toy()
    keys = list(network.state_dict())
    modules = {name: type(module) for name, module in network.named_modules()}
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, some(table, 0.3))
    plan(batch()[0]).sum().backward()
    assert list(network.state_dict()) == keys
    assert {name: type(module) for name, module in network.named_modules()} == modules
    assert "forward" not in vars(network.stem)


def test_a_layer_called_twice_gets_both_gradients():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 1)
            self.shared = nn.Conv2d(6, 6, 3, padding=1)
            self.head = nn.Linear(6, 5)

        def forward(self, x):
            x = self.shared(self.shared(self.stem(x)).tanh()).tanh()
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    network = Twice().double()
    table = neuron_table(network, SHAPE)
    stock = copy.deepcopy(network)
    plan = Plan(network, table, {"shared": torch.tensor([1, 4])})
    assert table.layers[1].macs == 54 * 2 * 144
    assert_same_gradients(plan, stock, *batch(), tolerance=1e-9)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"nothing": [0]}, "selectable layer"),
        ({"head": [0]}, "selectable layer"),
        ({"stem": [8]}, r"0 \.\. 7"),
        ({"stem": [-1]}, r"0 \.\. 7"),
        ({"stem": [3, 1]}, "ascending"),
        ({"stem": [1, 1]}, "ascending"),
    ],
)
def test_an_impossible_selection_is_refused(selection, message):
    network = toy()
    with pytest.raises(ValueError, match=message):
        Plan(network, neuron_table(network, SHAPE), {k: torch.tensor(v) for k, v in selection.items()})


def test_an_unknown_norm_mode_is_refused():
    network = toy()
    with pytest.raises(ValueError, match="Allowed: frontier, frozen, train"):
        Plan(network, neuron_table(network, SHAPE), {}, "batch")


def test_autocast_computes_in_bf16_and_keeps_float32_rows():
    network = toy(dtype=torch.float32)
    table = neuron_table(network, SHAPE)
    images, labels = batch(dtype=torch.float32)
    stock, exact = reference(network, "train"), reference(network, "train").double()
    F.cross_entropy(exact(images.double()), labels).backward()
    plan = Plan(network, table, some(table, 0.3), "train")
    addends = []
    stock.depthwise.register_full_backward_hook(
        lambda module, inputs, outputs: addends.append(outputs[0].float().abs().sum((0, 2, 3)))
    )
    grads = []
    for model in (plan, stock):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(images)
        assert outputs.dtype == torch.bfloat16
        F.cross_entropy(outputs.float(), labels).backward()
        grads.append(outputs)
    assert torch.equal(grads[0], grads[1])
    for name, leaf in plan.named_parameters():
        channels = slice(None) if plan.parts[name].index is None else plan.parts[name].index
        expected, right = (model.get_parameter(name).grad[channels] for model in (stock, exact))
        assert leaf.grad.dtype == torch.float32
        if name == "depthwise.bias":
            # A norm follows, so the gradient is zero: what is found is the rounding of the sum's addends.
            assert right.norm() < 1e-12
            assert leaf.grad.norm() <= torch.finfo(torch.bfloat16).eps * addends[0][channels].norm()
        else:
            # Two ways to round differ by at most what each is off.
            rounding = (expected - right).norm()
            assert (leaf.grad - expected).norm() <= max(2e-2 * expected.norm(), 2 * rounding), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_full_selection_trains_as_plain_pytorch_does(dtype, tolerance):
    """Parity: 20 steps of SGD with momentum and weight decay, the same losses."""
    losses = []
    for selective, kind in ((True, dtype), (False, dtype), (False, torch.float64)):
        network = toy(dtype=kind)
        table = neuron_table(network, SHAPE)
        full = table.selection(torch.ones(len(table), dtype=torch.bool))
        model = Plan(network, table, full, "train") if selective else network.train()
        optimizer = torch.optim.SGD(list(model.parameters()), lr=0.05, momentum=0.9, weight_decay=1e-3)
        for step in range(20):
            images, labels = batch(seed=step, dtype=kind)
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    ours, theirs, exact = losses[:20], losses[20:40], losses[40:]
    # Two ways to round drift apart by no more than both drift from the exact losses.
    drift = max(abs(a - b) for a, b in zip(theirs, exact, strict=True))
    assert all(abs(a - b) <= max(tolerance, 2 * drift) for a, b in zip(ours, theirs, strict=True))
    assert losses[0] != losses[19]


def test_almost_full_selection_trains_as_plain_pytorch_does():
    """The same through our own functions: every row but one, which plain PyTorch holds still by hand."""
    losses = []
    for selective in (True, False):
        network = toy()
        table = neuron_table(network, SHAPE)
        chosen = torch.ones(len(table), dtype=torch.bool)
        for layer in table.layers:
            chosen[table.slice_of(layer.name).start] = False
        model = Plan(network, table, table.selection(chosen), "train") if selective else network.train()
        optimizer = torch.optim.SGD(list(model.parameters()), lr=0.05, momentum=0.9)
        first = {layer.name: copy.deepcopy(network.get_submodule(layer.name)) for layer in table.layers}
        for step in range(20):
            images, labels = batch(seed=step)
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not selective:
                with torch.no_grad():
                    for name, old in first.items():
                        module = network.get_submodule(name)
                        module.weight[0] = old.weight[0]
                        if module.bias is not None:
                            module.bias[0] = old.bias[0]
            losses.append(loss.item())
    assert all(abs(a - b) <= 1e-9 for a, b in itertools.zip_longest(losses[:20], losses[20:]))


def test_a_block_whose_forward_is_bound_to_it_trains_too():
    network = toy()

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(24, 24, 1).double()

    def forward(self, x):
        return self.conv(x)

    block = Block()
    block.forward = types.MethodType(forward, block)
    network.pointwise = block
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"pointwise.conv": [3]})
    images, labels = batch()
    F.cross_entropy(plan(images), labels).backward()
    assert dict(plan.named_parameters())["pointwise.conv.weight"].grad is not None
    assert block.conv.weight.grad is None


def test_an_unknown_bias_layer_is_refused():
    network = toy()
    with pytest.raises(ValueError, match="did you mean 'pointwise'"):
        Plan(network, neuron_table(network, SHAPE), {}, bias_layers=("poitnwise",))


def test_an_unbatched_image_is_understood():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(10, 2)).double()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"0": [1]})
    image = batch()[0][0]
    assert torch.allclose(plan(image), network(image))


def test_autocast_leaves_float64_alone():
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"stem": [1]}, "train")
    with torch.autocast("cpu", torch.bfloat16):
        assert plan(batch()[0]).dtype == torch.float64


@pytest.mark.slow
def test_a_plan_can_be_imported_without_the_configuration():
    """The core serves any training loop: it loads no library that only reads settings."""
    code = "import sys, neq.backward.plan; print(*{'pydantic', 'ruamel', 'neq.config'} & sys.modules.keys())"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


class Reading(nn.Module):
    """A network whose forward reads parameters beside calling their layers."""

    def __init__(self, reads):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head, self.reads = nn.BatchNorm2d(8), nn.Linear(8, 5), reads

    def forward(self, x):
        x = self.a(x).relu()
        logits = self.head(self.norm(self.b(x)).relu().mean((2, 3)))
        return logits + self.reads(self, x).mean()


def gram(network, x):
    rows = network.b.weight.flatten(1)
    return (rows @ rows.T).square()


READS = {
    "two dilations": lambda network, x: F.conv2d(x, network.b.weight, padding=2, dilation=2).relu(),
    "penalty": gram,
    "bias": lambda network, x: network.b.bias.square(),
    "norm": lambda network, x: network.norm.weight.abs(),
    "head": lambda network, x: network.head.weight.square(),
    "all": lambda network, x: sum(parameter.square().sum() for parameter in network.parameters()),
    "training alone": lambda network, x: gram(network, x) if network.training else x,
    "untraced": lambda network, x: gram(network, x) * (2 if x.detach().sum() > -1e9 else 1),
}


@pytest.mark.parametrize("reads", READS.values(), ids=READS)
@pytest.mark.parametrize(("rows", "norm_mode"), [([0, 3], "frozen"), ([0, 3], "train"), (range(8), "train")])
def test_parameters_that_a_forward_reads_too_get_all_of_their_gradient(reads, rows, norm_mode):
    torch.manual_seed(0)
    network = Reading(reads).double()
    stock = reference(network, norm_mode)
    plan = Plan(network, neuron_table(network, SHAPE), {"b": rows}, norm_mode)
    assert_same_gradients(plan, stock, *batch(), tolerance=1e-9)
    frozen = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert frozen <= {name for name, _ in plan.named_parameters()}


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
def test_layers_called_by_keyword_train(unit):
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

        def forward(self, x):
            x = self.norm(input=self.a(input=x))
            return self.head(input=F.relu(input=x).mean((2, 3)))

    network = Keywords().double()
    table = neuron_table(network, SHAPE, unit=unit)
    assert table.layers[0].norm == "norm"
    for norm_mode in ("train", "frozen"):
        stock = reference(network, norm_mode)
        stock.zero_grad()
        plan = Plan(network, table, {"a": [1]}, norm_mode)
        F.cross_entropy(plan(batch()[0]), batch()[1]).backward()
        F.cross_entropy(stock(batch()[0]), batch()[1]).backward()
        for name, leaf in plan.named_parameters():
            right = plan.parts[name].take(stock.get_parameter(name).grad)
            assert torch.allclose(leaf.grad, right, rtol=1e-9, atol=1e-12), name
            leaf.grad = None


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_under_autocast_passes_a_gradient_on(mode):
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1, padding_mode=mode), nn.Tanh()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )
    images, labels = batch(dtype=torch.float32)
    stock = copy.deepcopy(network)
    plan = Plan(network, neuron_table(network, SHAPE), {"0": [0], "2": [1, 5]})
    for model in (plan, stock):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(images)
        F.cross_entropy(outputs.float(), labels).backward()
    for name, leaf in plan.named_parameters():
        right = plan.parts[name].take(stock.get_parameter(name).grad)
        assert (leaf.grad - right).norm() <= 2e-2 * right.norm(), name


def test_a_deep_copy_trains_a_network_of_its_own():
    network = toy()
    plan = Plan(
        network, neuron_table(network, SHAPE), {"stem": [1, 2], "hidden": [3]}, "train", ["pointwise"]
    )
    images, labels = batch()
    F.cross_entropy(plan(images), labels).backward()
    copied = copy.deepcopy(plan)
    assert copied.network is not network
    leaves = zip(plan.named_parameters(), copied.named_parameters(), strict=True)
    for (name, mine), (other_name, other) in leaves:
        assert name == other_name
        assert mine is not other
        assert torch.equal(mine.grad, other.grad)
    before = copy.deepcopy(network.state_dict())
    torch.optim.SGD(copied.parameters(), lr=0.1).step()
    copied.write_back()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    moved = (copied.network.stem.weight != network.stem.weight).flatten(1).any(1)
    assert moved.nonzero().flatten().tolist() == [1, 2]


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
def test_a_plan_within_what_is_compiled_runs_as_it_is():
    """docs/own_loop.md: the results are those without torch.compile."""
    losses = []
    for is_compiled in (False, True):
        network = toy()
        plan = Plan(network, neuron_table(network, SHAPE), {"stem": [1, 2], "hidden": [3]})
        forward = torch.compile(plan, backend="eager") if is_compiled else plan
        optimizer = torch.optim.SGD(plan.parameters(), lr=0.1, momentum=0.9)
        for step in range(3):
            images, labels = batch(step)
            loss = F.cross_entropy(forward(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.write_back()
            losses.append(loss.item())
    assert losses[:3] == losses[3:]
