"""ONNX files of int8 networks: the codes that onnxruntime computes beside ours."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neq.cli import main
from neq.int8 import (
    Add,
    Conv,
    Description,
    Int8Network,
    Linear,
    MaxPool,
    Multiply,
    Pool,
    Quantization,
    Table,
    read_tiny_training,
)
from neq.int8.modules import QuantizedModule
from neq.int8.onnx_file import TOLERANCE, onnx_model
from neq.utils.errors import UserError
from neq.utils.images import open_image
from tests.int8.toys import description, images

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))


def codes_of(network, images_):
    """The logits of a network, and the codes of its operations by name, int8."""
    found = {}

    def keep(name, module):
        def hook(_, inputs, output):
            found[name] = (output + module.output.zero).to(torch.int8).numpy()

        return module.register_forward_hook(hook)

    handles = [keep(n, m) for n, m in network.named_modules() if isinstance(m, QuantizedModule)]
    with torch.no_grad():
        logits = network(images_).numpy()
    for handle in handles:
        handle.remove()
    return logits, found


def run(model, given, wanted):
    """What onnxruntime computes with the operators as they are written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(wanted, given)


def one_by_one(model, codes):
    """The codes of every operation of a model, each of which is given these codes of the one before."""
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    made = [node for node in apart.graph.node if node.op_type in ("QuantizeLinear", "Gather")]
    for node in made:
        name = node.output[0]
        node.output[0] = f"{name}.made"
        for list_, called in ((apart.graph.input, name), (apart.graph.output, f"{name}.made")):
            list_.append(onnx.helper.make_tensor_value_info(called, onnx.TensorProto.INT8, None))
    return apart, [node.output[0].removesuffix(".made") for node in made]


def check(network, images_):
    """Checks a network's model; returns the share of codes that differ by one."""
    module = Int8Network(network)
    logits, ours = codes_of(module, images_)
    model = onnx_model(module.describe(), images_.shape[-1])
    onnx.checker.check_model(model, full_check=True)
    apart, names = one_by_one(model, ours)
    assert set(names) == {"image", *(each.name for each in network.operations)}
    theirs = run(apart, {"images": images_.numpy(), **ours}, [f"{name}.made" for name in names])
    steps = [np.abs(ours[n].astype(int) - t) for n, t in zip(names, theirs, strict=True)]
    assert max(int(step.max()) for step in steps) <= 1
    (outputs,) = run(model, {"images": images_.numpy()}, ["logits"])
    assert np.abs(outputs - logits).max() <= TOLERANCE * max(1.0, np.abs(logits).max())
    return sum(int(step.sum()) for step in steps) / sum(step.size for step in steps)


def test_the_codes_of_every_operation_are_ours(tmp_path):
    assert check(description(tmp_path), images(6)) < 0.01  # an eighth of the sums of its residual are ties


def conv(name, source, output, shape, stride=1):
    generator = torch.Generator().manual_seed(len(name))
    weight = torch.randint(-127, 128, shape, generator=generator).to(torch.int8)
    bias = torch.randint(-999, 999, shape[:1], generator=generator).to(torch.int32)
    scales = torch.rand(shape[0], generator=generator) / 300 + 1e-3
    return Conv(name, (source,), output, weight, bias, scales, stride)


def test_every_operation_has_a_form():
    """A conv, a table, max pooling, squeeze-and-excitation, a residual."""
    real, gate = Quantization(0.037, -20), Quantization(1 / 255, -128)
    values = torch.arange(-128, 128)
    look_up = (values.double() * 0.9 - 3).round().clamp(-128, 127).to(torch.int8), torch.ones(256)
    sigmoid = (torch.sigmoid(values / 20) * 255 - 128).round().to(torch.int8), torch.ones(256)
    operations = (
        conv("stem", "image", real, (8, 3, 3, 3), 2),
        Table("act", ("stem",), real, *look_up),
        MaxPool("max", ("act",), real, 3, 2, 1),
        Pool("squeeze", ("max",), real),
        conv("excite", "squeeze", real, (8, 8, 1, 1)),
        Table("gate", ("excite",), gate, *sigmoid),
        Multiply("scaled", ("max", "gate"), Quantization(0.031, 5)),
        Add("sum", ("scaled", "max"), Quantization(0.053, -7)),
        Multiply("squared", ("sum", "sum"), Quantization(0.11, -100)),
        Pool("pool", ("squared",), Quantization(0.11, -100)),
    )
    head = Linear("classifier", ("pool",), torch.eye(5, 8), torch.zeros(5))
    network = Description(Quantization(2 / 255, 0), operations, head)
    assert check(network, images(4)) < 0.01
    _, codes = codes_of(Int8Network(network), images(4))
    assert all(len(np.unique(codes[each.name])) > 5 for each in operations)


def test_weights_stay_int8_with_a_scale_a_channel(tmp_path):
    network = description(tmp_path)
    constants = {
        each.name: onnx.numpy_helper.to_array(each) for each in onnx_model(network, 16).graph.initializer
    }
    for conv in network.convs:
        assert np.array_equal(constants[f"{conv.name}.weight"], conv.weight.numpy())
        assert np.array_equal(constants[f"{conv.name}.weight.scales"], conv.scales.numpy())
        assert np.array_equal(constants[f"{conv.name}.bias"], conv.bias.numpy())
        assert constants[f"{conv.name}.bias"].dtype == np.int32


def test_other_operations_are_refused_by_name(tmp_path):
    class Twice(Add):
        pass

    network = description(tmp_path)
    added = [
        Twice(each.name, each.inputs, each.output) if isinstance(each, Add) else each
        for each in network.operations
    ]
    with pytest.raises(UserError, match=r"blocks\.1\.residual is a Twice, which has no ONNX form here"):
        onnx_model(dataclasses.replace(network, operations=tuple(added)), 16)


@pytest.mark.slow
@pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)
@pytest.mark.parametrize("file", ["mbv2-w0.35", "mcunet-5fps", "proxyless-w0.3"])
def test_a_published_network_on_photos(file):
    network = read_tiny_training(ASSETS / "weights" / f"tinytraining_{file}.pkl")
    photos = sorted((ASSETS / "data/imagenet_sample").glob("*.jpg"))[:4]
    pixels = []
    for path in photos:
        with open_image(path) as photo:
            pixels.append(np.array(photo.convert("RGB").resize((128, 128))))
    assert check(network, torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1) < 1e-4


@pytest.mark.slow
def test_a_run_is_exported(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    monkeypatch.chdir(tmp_path)
    flags = [
        "--net_name",
        "int8:mcunet-in1",
        "--weights",
        "none",
        "--dataset",
        "digits",
        "--image_size",
        "16",
    ]
    flags += ["--n_epochs", "1", "--warmup_epochs", "0", "--base_batch_size", "256", "--norm_mode", "frozen"]
    flags += ["--neuron_selection", "head", "--initialization", "head", "--ratio", "0", "--device", "cpu"]
    assert main(["train", *flags, "--run-dir", "run"]) == 0
    assert main(["export", "run", "--onnx", "a.onnx"]) == 0
    assert "opset 17" in capsys.readouterr().out
    constants = {each.name for each in onnx.load("a.onnx").graph.initializer}
    assert "blocks.0.depthwise.weight.scales" in constants
