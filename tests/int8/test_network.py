"""Int8 networks: codes of slow integer arithmetic, gradients of a straight-through reference, photos."""

import json
import operator
import os
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from neq.int8 import Int8Network, Pool, float_weights, read_tiny_training, set_exact
from neq.networks.build import build_network
from neq.utils.errors import UserError
from tests.int8.reference import latent, reference_network, slow_network
from tests.int8.toys import description, excited, images

TOYS = {"residual": description, "squeeze and excitation": lambda folder, seed=0: excited(seed)}

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))


def operations_of(network, x):
    """What each operation of a network returns for images, by name."""
    found, handles = {}, []
    for name, _ in network.steps:

        def keep(module, inputs, output, name=name):
            found[name] = output.detach().clone()

        handles.append(network.get_submodule(name).register_forward_hook(keep))
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("seed", range(2))
def test_the_codes_of_every_operation_are_those_of_integer_arithmetic(seed, toy, layout, exact, tmp_path):
    described = TOYS[toy](tmp_path, seed)
    network, x = Int8Network(described), images(seed=seed)
    set_exact(network, exact)
    right = slow_network(described, x)
    for name, found in operations_of(network, x.contiguous(memory_format=layout)).items():
        zero = described.quantization(name).zero
        assert np.array_equal(found.numpy() + zero, right[name]), name
        assert len(np.unique(right[name])) > min(8, right[name].size // 8), name


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradients_are_those_of_the_straight_through_reference(layout, toy, tmp_path):
    described = TOYS[toy](tmp_path)
    network = Int8Network(described).to(memory_format=layout)
    tensors = latent(described)
    network.load_state_dict(tensors, strict=False)
    classifier = network.get_submodule(network.head)
    tensors |= {f"{network.head}.{key}": value.detach() for key, value in classifier.named_parameters()}
    tensors = {name: value.double().requires_grad_() for name, value in tensors.items()}
    x, labels = images(6), torch.arange(6) % 5
    F.cross_entropy(reference_network(described, x, tensors), labels).backward()
    outputs = network(x.contiguous(memory_format=layout))
    F.cross_entropy(outputs, labels).backward()
    parameters = dict(network.named_parameters())
    assert parameters.keys() == tensors.keys()
    for name, parameter in parameters.items():
        right = tensors[name].grad
        assert float(right.abs().max()) > 0, name
        torch.testing.assert_close(
            parameter.grad.double(), right, rtol=1e-4, atol=1e-4 * float(right.abs().max())
        )


def test_it_is_described_as_it_was_read_and_by_its_codes_after_training(tmp_path):
    there = description(tmp_path)
    network = Int8Network(there)
    found = network.describe()
    for a, b in zip(there.convs, found.convs, strict=True):
        assert (a.name, a.inputs, a.output, a.stride, a.groups) == (
            b.name,
            b.inputs,
            b.output,
            b.stride,
            b.groups,
        )
        assert all(torch.equal(getattr(a, key), getattr(b, key)) for key in ("weight", "bias", "scales"))
    weights = float_weights(there)
    assert all(torch.equal(weights[name], value) for name, value in float_weights(found).items())
    with torch.no_grad():
        conv = network.get_submodule("blocks.1.depthwise")
        conv.weight[3] += 0.6
        conv.weight[4] = 200
        before = there.convs[4].weight
        after = network.describe().convs[4].weight
    assert torch.equal(after[3], (before[3] + 1).clamp(max=127))
    assert torch.equal(after[4], torch.full_like(after[4], 127))
    assert torch.equal(after[5:], before[5:])
    with torch.no_grad():
        assert torch.equal(network(images()), Int8Network(network.describe())(images()))


def test_every_kind_of_operation_is_described_as_it_was():
    there = excited()
    found = Int8Network(there).describe()
    for a, b in zip((*there.operations, there.head), (*found.operations, found.head), strict=True):
        assert type(a) is type(b)
        for key, value in vars(a).items():
            same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
            assert same(value, getattr(b, key)), (a.name, key)
    assert (found.image, found.images, found.classes) == (there.image, there.images, there.classes)


@pytest.mark.parametrize("name", ["steps", "block", "forward.a", "block.expand.weight"])
def test_a_name_that_no_module_can_have_is_refused(name):
    there = excited()
    pool = Pool(name, (there.operations[-1].name,), there.operations[-1].output)
    head = replace(there.head, inputs=(name,))
    with pytest.raises(UserError, match=f"'{name}' of an int8 network has a name that is taken"):
        Int8Network(replace(there, operations=(*there.operations, pool), head=head))


def test_its_state_holds_scales_and_zero_points(tmp_path):
    one, other = (Int8Network(description(tmp_path, seed)) for seed in (0, 1))
    one.get_submodule("blocks.1.residual").output = one.get_submodule("pool").output
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one(images()), other(images()))


def test_no_result_is_kept_longer_than_it_is_used(tmp_path):
    network = Int8Network(description(tmp_path))
    results, alive = [], []

    def keep(module, inputs, output):
        results.append(weakref.ref(output))
        alive.append(sum(each() is not None for each in results))

    for name, _ in network.steps:
        network.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        network(images())
    assert max(alive) == 3  # a block's input, and input and result of the layer that is called


def photos(folder):
    """The labelled photos, normalized [N, 3, 128, 128], and their labels."""
    labels = json.loads((folder / "labels.json").read_text())
    found = []
    for name in labels:
        image = Image.open(folder / name).convert("RGB")
        scale = 147 / min(image.size)
        image = image.resize(tuple(round(side * scale) for side in image.size), Image.Resampling.BILINEAR)
        left, top = ((side - 128) // 2 for side in image.size)
        found.append(np.asarray(image.crop((left, top, left + 128, top + 128))))
    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)
    return (pixels.float() / 255 - 0.5) / 0.5, torch.tensor(list(labels.values()))


@pytest.mark.slow
@pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)
@pytest.mark.parametrize(
    ("file", "folded", "int8", "float_"),
    [
        ("mbv2-w0.35", "mbv2-w0.35_folded", 52.0, 54.5),
        ("mcunet-5fps", "mcunet-in1_folded", 65.5, 67.0),
        ("proxyless-w0.3", "proxyless-w0.3_folded", 53.5, 54.0),
    ],
)
def test_the_published_networks_know_photos(file, folded, int8, float_):
    described = read_tiny_training(ASSETS / "weights" / f"tinytraining_{file}.pkl")
    x, labels = photos(ASSETS / "data" / "imagenet_sample")
    network = Int8Network(described).to(memory_format=torch.channels_last)
    plain = build_network(folded, 1000).eval()
    plain.load_state_dict(float_weights(described))
    with torch.no_grad():
        for each, published in ((network, int8), (plain, float_)):
            outputs = [each(part.contiguous(memory_format=torch.channels_last)) for part in x.split(40)]
            top1 = 100 * (torch.cat(outputs).argmax(1) == labels).float().mean().item()
            assert top1 == pytest.approx(published, abs=1.51)
        codes = operations_of(network, x[:20])
        set_exact(network, True)
        exact = operations_of(network, x[:20])
    assert all(torch.equal(codes[name], exact[name]) for name in exact)
