"""Quantizing float networks: codes of slow integer arithmetic, agreement with the float network, photos."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from neq.int8 import (
    Images,
    Int8Network,
    Table,
    float_weights,
    quantize,
    read_int8,
    read_tiny_training,
    write_int8,
)
from neq.int8.calibrate import min_max, observe, quantization
from neq.int8.quantize import description, image_quantization, weight_codes
from neq.int8.trace import read_network
from neq.networks.build import build_network
from neq.utils.errors import UserError
from tests.int8.float_toys import excited, pictures, trained
from tests.int8.reference import slow_network
from tests.int8.test_network import operations_of, photos

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))
IMAGES, IMAGENET = Images(16), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def quantized():
    network = excited()
    return network, quantize(network, pictures(80), IMAGES, tuple("abcde"))


def test_it_agrees_with_the_float_network(quantized):
    network, found = quantized
    x, int8 = pictures(40, seed=9), Int8Network(found.network)
    with torch.no_grad():
        cosines = F.cosine_similarity(network(x), int8(x))
    assert float(cosines.min()) > 0.98
    best = max(found.agreements, key=lambda method: found.agreements[method].cosine)
    assert found.method == best
    assert found.agreements.keys() == {"min-max", "percentile", "mse"}
    assert (found.network.images, found.network.classes) == (IMAGES, tuple("abcde"))
    assert torch.equal(int8.classifier.weight, network.classifier.weight)


def test_its_codes_are_those_of_slow_integer_arithmetic(quantized):
    described, x = quantized[1].network, pictures(6, seed=5)
    right = slow_network(described, x)
    for name, found in operations_of(Int8Network(described), x).items():
        zero = described.quantization(name).zero
        assert np.array_equal(found.numpy() + zero, right[name]), name


def test_it_is_the_same_each_time_and_after_a_file(quantized, tmp_path):
    network, found = quantized
    again = quantize(network, pictures(80), IMAGES, tuple("abcde"))
    write_int8(tmp_path / "a.safetensors", found.network)
    write_int8(tmp_path / "b.safetensors", again.network)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    x = pictures(4)
    with torch.no_grad():
        here, there = (
            Int8Network(each)(x) for each in (found.network, read_int8(tmp_path / "a.safetensors"))
        )
    assert torch.equal(here, there)


def test_tables_hold_the_function_and_its_slopes(quantized):
    described = quantized[1].network
    table = next(each for each in described.operations if isinstance(each, Table) and "silu" in each.name)
    given, output = described.quantization(table.inputs[0]), table.output
    x = (torch.arange(-128, 128).double() - given.zero) * given.scale
    right = (F.silu(x) / output.scale).round() + output.zero
    assert torch.equal(table.table.double(), right.clamp(-128, 127))
    inside = (right >= -128) & (right <= 127)
    steps = (F.silu(x + 1e-4) - F.silu(x - 1e-4)) / 2e-4 * given.scale / output.scale
    torch.testing.assert_close(table.slopes.double(), steps * inside, rtol=1e-3, atol=1e-3)


def test_what_a_table_alone_reads_is_limited_to_where_it_varies(quantized):
    described = quantized[1].network
    gate = next(each for each in described.operations if "hardsigmoid" in each.name)
    read = described.quantization(gate.inputs[0])
    assert (-128 - read.zero) * read.scale > -3.02
    assert (127 - read.zero) * read.scale < 3.02


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.integers(1, 6),
    scale=st.floats(1e-4, 1.0),
    size=st.sampled_from([0.0, 1e-30, 1e-12, 1e-3, 1.0, 1e4]),
)
def test_weights_and_biases_are_within_half_a_code(seed, channels, scale, size):
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.normal(size=(channels, 3, 3, 3)).astype(np.float32))
    bias = torch.from_numpy(rng.normal(size=channels).astype(np.float32))
    weight[0] *= size
    codes, biases, scales = weight_codes(weight, bias, scale)
    assert (codes.dtype, biases.dtype, scales.dtype) == (torch.int8, torch.int32, torch.float32)
    assert bool((scales > 0).all())
    assert int(codes.min()) >= -127
    real = codes.double() * scales.double().view(-1, 1, 1, 1)
    assert bool(((real - weight.double()).abs() <= 0.5001 * scales.double().view(-1, 1, 1, 1)).all())
    # A bias whose code would not fit has one at the end of the range, as near as float32 scales allow.
    error = (biases.double() * scales.double() * scale - bias.double()).abs()
    assert bool((error <= 0.5001 * scales.double() * scale + 1e-6 * bias.double().abs()).all())


def test_dead_channels_are_finite():
    network = excited()
    with torch.no_grad():
        network.expand.weight[3] = 0
        network.expand.bias[3] = network.norm.bias[3] = network.norm.running_mean[3] = 0
        network.project.weight.zero_()
        network.project.bias.zero_()
    found = quantize(network, pictures(), IMAGES).network
    assert all(bool(conv.scales.isfinite().all() and (conv.scales > 0).all()) for conv in found.convs)
    x, int8 = pictures(4), Int8Network(found)
    out = int8(x)
    out.sum().backward()
    with torch.no_grad():
        assert float(F.cosine_similarity(network(x), out).min()) > 0.98
    assert all(bool(each.grad.isfinite().all()) for each in int8.parameters())


def test_images_of_any_normalization_have_one_scale():
    tiny = image_quantization(Images())
    assert (tiny.scale, tiny.zero) == (pytest.approx(2 / 255), 0)
    found = image_quantization(Images(224, *IMAGENET))
    ends = [(0 - 0.485) / 0.229, (1 - 0.406) / 0.225]
    assert found.scale == pytest.approx((ends[1] - ends[0]) / 255)
    assert (-128 - found.zero) * found.scale == pytest.approx(ends[0], abs=found.scale / 2)


def test_one_image_is_too_few():
    with pytest.raises(UserError, match="1 image is too few to calibrate on"):
        quantize(excited(), pictures(1), IMAGES)


def test_an_int8_network_stays_as_it_is(quantized):
    described = quantized[1].network
    found = quantize(Int8Network(described), pictures(4), Images(24), tuple("vwxyz"))
    assert not found.agreements
    assert (found.network.images.size, found.network.classes) == (24, tuple("vwxyz"))
    same = zip(described.convs, found.network.convs, strict=True)
    assert all(torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias) for a, b in same)


def test_layers_may_have_the_names_of_the_networks_parts():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.steps = nn.Conv2d(3, 4, 3, 2, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
            self.head = nn.Linear(4, 5)

        def forward(self, x):
            return self.head(self.steps(self.image(x)).mean((2, 3)))

    network, x = Named().eval(), pictures(8)
    found = Int8Network(quantize(network, x, IMAGES).network)
    with torch.no_grad():
        assert float(F.cosine_similarity(network(x), found(x)).min()) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mbv2", "resnet18", "mobilenet_v3_small", *(f"mcunet-in{n}" for n in range(5))]
)
def test_networks_of_the_catalog_are_quantized(name, tmp_path):
    network = build_network(name, 7, weights="none").eval()
    found = quantize(network, pictures(24, 48), Images(48))
    write_int8(tmp_path / "a.safetensors", found.network)
    int8, x = Int8Network(read_int8(tmp_path / "a.safetensors")), pictures(4, 48, seed=7)
    with torch.no_grad():
        assert float(F.cosine_similarity(network(x), int8(x)).min()) > 0.98
    convs = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    hidden = sum(isinstance(each, nn.Linear) for each in network.modules()) - 1
    assert len(found.network.convs) == len(convs) + hidden


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "mcunet-in1"])
def test_every_operation_agrees_with_that_of_the_float_network(name):
    """On the codes that it reads, so that the errors of earlier operations do not matter."""
    original = read_network(trained(build_network(name, 7, weights="none"), 48), 48)
    values = observe(original, pictures(24, 48))
    described = description(original, {n: quantization(*min_max(v)) for n, v in values.items()}, Images(48))
    given, results = {}, {}
    int8 = Int8Network(described)
    for each in described.operations:

        def keep(module, inputs, output, name=each.name):
            given[name] = [x * of.scale for x, of in zip(inputs, module.inputs, strict=True)]
            results[name] = output

        int8.get_submodule(each.name).register_forward_hook(keep)
    with torch.no_grad():
        int8(pictures(4, 48, seed=7))
    for each, plain in zip(described.operations, original.operations, strict=True):
        low, high = ((code - each.output.zero) * each.output.scale for code in (-128, 127))
        right = plain(*given[each.name]).clamp(low, high)
        error = (results[each.name] * each.output.scale - right).abs()
        assert float(error.max()) < max(2 * each.output.scale, 0.02 * (high - low)), each.name
        assert float(error.mean()) < each.output.scale, each.name


needs_assets = pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)


def other_photos(side, mean, std, count=96):
    """Photos of caltech101, normalized [count, 3, side, side]; some of everything."""
    files = sorted((ASSETS / "data" / "caltech101").rglob("*.jpg"))
    found = []
    for file in files[:: len(files) // count][:count]:
        image = Image.open(file).convert("RGB")
        scale = side * 147 / 128 / min(image.size)
        image = image.resize(tuple(round(each * scale) for each in image.size), Image.Resampling.BILINEAR)
        left, top = ((each - side) // 2 for each in image.size)
        found.append(np.asarray(image.crop((left, top, left + side, top + side))))
    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@torch.no_grad()
def top1(network, x, labels):
    outputs = [network(part.contiguous(memory_format=torch.channels_last)) for part in x.split(40)]
    return 100 * (torch.cat(outputs).argmax(1) == labels).double().mean().item()


@pytest.mark.slow
@needs_assets
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mbv2-w0.35", "mbv2-w0.35_folded"),
        ("mcunet-5fps", "mcunet-in1_folded"),
        ("proxyless-w0.3", "proxyless-w0.3_folded"),
    ],
)
def test_float_copies_of_the_published_networks_lose_little(file, name):
    """Calibrated on other photos, they are at most 2 points below the published int8 files."""
    published = read_tiny_training(ASSETS / "weights" / f"tinytraining_{file}.pkl")
    network = build_network(name, 1000).eval()
    network.load_state_dict(float_weights(published))
    half = (0.5, 0.5, 0.5)
    found = quantize(network, other_photos(128, half, half), Images())
    x, labels = photos(ASSETS / "data" / "imagenet_sample")
    mine, theirs = (top1(Int8Network(each), x, labels) for each in (found.network, published))
    assert mine >= theirs - 2
    assert mine == pytest.approx(top1(network, x, labels), abs=3)


@pytest.mark.slow
@needs_assets
def test_mobilenet_v2_keeps_its_accuracy():
    file = ASSETS / "weights" / "mobilenet_v2_torchvision_imagenet_from_tf2ptq.safetensors"
    network = build_network("mbv2", 1000, weights=str(file)).eval()
    found = quantize(network, other_photos(224, *IMAGENET, count=64), Images(224, *IMAGENET))
    labels = json.loads((ASSETS / "data" / "imagenet_sample" / "labels.json").read_text())
    names = [*labels][::4]
    x = []
    for name in names:
        image = Image.open(ASSETS / "data" / "imagenet_sample" / name).convert("RGB").resize((224, 224))
        x.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255)
    x = (torch.stack(x) - torch.tensor(IMAGENET[0]).view(3, 1, 1)) / torch.tensor(IMAGENET[1]).view(3, 1, 1)
    right = torch.tensor([labels[name] for name in names])
    assert top1(Int8Network(found.network), x, right) >= top1(network, x, right) - 4
