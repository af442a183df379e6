import json

import pytest
import torch
from torch import nn

from benchmarks.common import peak_bytes, settle
from benchmarks.selections import chooser
from benchmarks.training_step import Settings, floor, gradient_error, main, make_task, measure, parse
from benchmarks.variants import VARIANTS, Task
from neq.backward import Plan
from neq.networks.neurons import neuron_table
from neq.runs.selection_file import read_selection_history
from neq.utils.errors import UserError
from tests.toys import batch, toy

TINY = {"network": "mcunet-in0", "image_size": 32, "batch_size": 4, "rounds": 2}
FLAGS = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items()]
CPU = torch.device("cpu")
FIGURES = {"time_ratio", "saved_ratio", "peak_ratio", "step_ms", "saved_bytes", "peak_bytes"}


def toy_task(norm_mode="frozen", chosen=None):
    network = toy()
    table = neuron_table(network, (3, 12, 12))
    neurons = torch.zeros(len(table), dtype=torch.bool)
    neurons[torch.tensor([20, 21] if chosen is None else chosen, dtype=torch.int64)] = True
    return Task(network, table, table.selection(neurons), (), norm_mode, *batch())


def tiny_task(norm, selection, network="mcunet-in0"):
    settings = Settings(network, 32, 4, norm, selection)
    return make_task(settings, chooser(selection, network), CPU)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    output = tmp_path_factory.mktemp("report") / "out.json"
    arguments = [*FLAGS, "--norm=frozen", "--selection=late:0.2", f"--output={output}"]
    assert main(arguments) == 0
    return json.loads(output.read_text())


def test_the_report_has_its_keys(report):
    assert set(report) == {
        "variants",
        "floor",
        "predicted_saved_bytes",
        "measured_saved_bytes",
        "gradient_error",
        "settings",
        "machine",
    }
    assert list(report["variants"]) == [
        "plain",
        "channels_last",
        "frozen_norms",
        "masked",
        "requires_grad",
        "selective",
    ]
    assert all(set(figures) == FIGURES for figures in report["variants"].values())
    assert report["settings"].items() >= TINY.items()
    assert set(report["machine"]) == {"cpu", "torch", "threads", "device"}


def test_plain_is_the_measure_of_all(report):
    plain = report["variants"]["plain"]
    assert plain["time_ratio"] == plain["saved_ratio"] == plain["peak_ratio"] == 1
    for figures in report["variants"].values():
        assert figures["saved_ratio"] == figures["saved_bytes"] / plain["saved_bytes"]
        assert figures["peak_ratio"] == figures["peak_bytes"] / plain["peak_bytes"]
        assert figures["step_ms"] > 0


def test_masking_saves_nothing_and_a_late_selection_does(report):
    variants = report["variants"]
    assert variants["masked"]["saved_ratio"] == 1
    assert variants["selective"]["saved_bytes"] < variants["requires_grad"]["saved_bytes"]
    assert variants["selective"]["saved_ratio"] < 0.5
    assert variants["selective"]["peak_ratio"] < 1
    assert report["measured_saved_bytes"] == variants["selective"]["saved_bytes"]
    assert report["predicted_saved_bytes"] == pytest.approx(report["measured_saved_bytes"], rel=0.05)


def test_what_was_measured_is_right(report):
    assert report["gradient_error"] < 1e-9
    assert 0 < report["floor"] <= 1


@pytest.mark.parametrize("norm", ["train", "frontier", "frozen"])
def test_gradients_are_those_of_a_stock_network(norm):
    assert gradient_error(tiny_task(norm, "random:0.2")) < 1e-9


def test_a_wrong_gradient_shows(monkeypatch):
    task = toy_task()
    assert gradient_error(task) < 1e-9
    forward = Plan.__call__
    monkeypatch.setattr(Plan, "__call__", lambda self, images: 1.001 * forward(self, images))
    assert gradient_error(task) > 1e-5


@pytest.mark.slow
def test_only_the_wanted_variants_run_and_plain_always_does():
    arguments = [*FLAGS, "--norm=train", "--selection=full", "--variants=masked,channels_last"]
    settings, output = parse(arguments)
    assert settings.variants == ("plain", "channels_last", "masked")
    assert output is None
    report = measure(settings)
    assert list(report["variants"]) == ["plain", "channels_last", "masked"]
    assert report["measured_saved_bytes"] is None
    assert report["gradient_error"] is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("--network=mbv3", "did you mean 'mbv2'"),
        ("--network=torchvision:resnet19", "did you mean 'resnet18'"),
        ("--network=torchvision:squeezenet1_0", "no Linear head"),
        ("--network=torchvision:vit_b_32", "Expected 224"),
        ("--selection=late", "none of suN, random:R"),
        ("--selection=random:1.5", "none of suN, random:R"),
        ("--selection=su1", "lists convs of mbv2"),
        ("--selection=su9", "is unknown"),
        ("--norm=eval", "invalid choice"),
        ("--batch-size=1", "whole number of 2 or more"),
        ("--rounds=many", "whole number of 1 or more"),
        ("--variants=plain,ours", "variant 'ours' is unknown"),
        ("--output=no_such_folder/out.json", "a folder that exists"),
        ("--colour=red", "unrecognized arguments"),
    ],
)
def test_a_wrong_argument_is_one_line_and_code_2(changed, said, capsys):
    assert main([*FLAGS, "--norm=frozen", "--selection=full", changed]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(capsys):
    assert main([*FLAGS, "--norm=frozen", "--selection=full", "--device=cuda"]) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_selections():
    network = toy()
    table = neuron_table(network, (3, 12, 12))

    def used(text):
        return chooser(text, "toy")(network, table).neurons

    assert used("full").all()
    assert not used("random:0").any()
    assert torch.equal(used("random:0.3"), used("random:0.3"))
    assert int(table.parameters[used("random:0.3")].sum()) <= 0.3 * table.total_parameters
    late = used("late:0.3")
    assert late.nonzero().flatten().tolist() == list(range(len(table) - int(late.sum()), len(table)))


def test_the_neurons_of_a_run(tiny_run, tmp_path):
    last = read_selection_history(tiny_run).chosen[-1]
    task = tiny_task("frozen", f"run:{tiny_run}", "mcunet-in0")
    assert task.table.mask(task.selection).tolist() == last.tolist()
    assert last.any()
    with pytest.raises(UserError, match="another network"):
        tiny_task("frozen", f"run:{tiny_run}", "mbv2")
    with pytest.raises(UserError, match="cannot be read"):
        chooser(f"run:{tmp_path}", "mcunet-in0")


def test_su_lists_neurons_and_biases():
    task = tiny_task("frozen", "su1", "mbv2")
    assert int(task.table.parameters[task.table.mask(task.selection)].sum()) == 192_312
    assert len(task.bias_layers) == 16
    assert floor(task) == pytest.approx(0.48, abs=0.005)
    with pytest.raises(UserError, match="no lists"):
        chooser("su6", "mbv2")


def test_floors_by_hand():
    macs = {"stem": 8 * 27 * 36, "grouped": 12 * 18 * 36, "depthwise": 24 * 9 * 36, "pointwise": 24 * 24 * 36}
    macs |= {"hidden": 16 * 24, "head": 16 * 5}
    forward = sum(macs.values())
    full = 3 * forward - macs["stem"]
    # Two rows of the depthwise convolution (neurons 20 and 21), then the layers behind it.
    rows = 2 * 9 * 36 + macs["head"]
    behind = macs["pointwise"] + macs["hidden"] + macs["head"]
    assert floor(toy_task("frozen")) == (forward + behind + rows) / full
    assert floor(toy_task("frontier")) == (forward + behind + rows) / full
    assert floor(toy_task("train")) == (forward + forward - macs["stem"] + rows) / full
    assert floor(toy_task("frozen", [])) == (forward + macs["head"]) / full
    assert floor(toy_task("train", list(range(8 + 12 + 24 + 24 + 16)))) == 1


def test_masked_moves_chosen_rows_only():
    task = toy_task()
    variant = VARIANTS["masked"](task)
    variant.step()
    assert isinstance(variant.model, nn.Module)
    moved = {
        name: (variant.model.get_submodule(name).weight != task.network.get_submodule(name).weight)
        .flatten(1)
        .any(1)
        .nonzero()
        .flatten()
        .tolist()
        for name in ("stem", "grouped", "depthwise", "pointwise", "hidden")
    }
    assert moved == {"stem": [], "grouped": [], "depthwise": [0, 1], "pointwise": [], "hidden": []}


@pytest.mark.parametrize(("norm_mode", "norms"), [("train", {1, 2, 3}), ("frontier", {3}), ("frozen", set())])
def test_layer_freezing_trains_whole_layers_and_the_norms_of_the_mode(norm_mode, norms):
    variant = VARIANTS["requires_grad"](toy_task(norm_mode))
    assert isinstance(variant.model, nn.Module)
    trained = {name.partition(".")[0] for name, p in variant.model.named_parameters() if p.requires_grad}
    assert trained == {"depthwise", "head", *(f"norm{number}" for number in norms)}
    assert variant.model.get_submodule("norm1").training == (norm_mode != "frozen")


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_leave_the_task_alone_and_train_their_own_copy(name):
    task = toy_task()
    before = {key: value.clone() for key, value in task.network.state_dict().items()}
    variant = VARIANTS[name](task)
    losses = [variant.loss().item()]
    for _ in range(3):
        variant.step()
        losses.append(variant.loss().item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[key]) for key, value in task.network.state_dict().items())


def test_selective_counts_what_custom_functions_keep():
    task = toy_task()
    variant = VARIANTS["selective"](task)
    nothing = VARIANTS["selective"](toy_task(chosen=[]))
    # The input channel that both chosen rows read, once.
    read = task.images.shape[0] * 6 * 6 * 8
    assert variant.saved_bytes() >= nothing.saved_bytes() + read


def test_settling_sets_statistics_and_stops_dropout():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    images = [torch.full((2, 3, 2, 2), 1.0), torch.full((2, 3, 2, 2), 3.0)]
    settle(network, images)
    assert torch.allclose(network[0].running_mean, torch.tensor(2.0))
    assert network[0].momentum == 0.1
    assert network[0].weight.unique().numel() == 3
    assert network[1].p == 0


def test_peak_is_the_most_held_at_once():
    held = torch.ones(1000)

    def call():
        first = held + 1
        second = first + 1
        del first
        return second + 1

    assert 2 * held.nbytes <= peak_bytes(call, CPU) <= 2 * held.nbytes + 200
