"""The float network of an int8 network."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from neq.int8 import float_weights, read_tiny_training
from neq.networks.build import build_network
from tests.int8.toys import content, write

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))


def test_values_are_codes_times_scales(tmp_path):
    given = content()
    found = float_weights(read_tiny_training(write(tmp_path / "a.pkl", given)))
    params = given["blocks"][0]["depthwise"]["params"]
    weight, bias = found["blocks.0.depthwise.weight"], found["blocks.0.depthwise.bias"]
    for channel in range(8):
        scale = float(params["w_scales"][channel])
        right = torch.from_numpy(params["weight"][channel]).double() * scale
        torch.testing.assert_close(weight[channel].double(), right)
        assert float(bias[channel]) == pytest.approx(params["bias"][channel] * scale * params["x_scale"])
    assert found["classifier.weight"].shape == (5, 8)
    assert len(found) == 14
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


@pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mbv2-w0.35", "mbv2-w0.35_folded"),
        ("mcunet-5fps", "mcunet-in1_folded"),
        ("proxyless-w0.3", "proxyless-w0.3_folded"),
    ],
)
def test_the_published_networks_fit_the_folded_builds(file, name):
    found = float_weights(read_tiny_training(ASSETS / "weights" / f"tinytraining_{file}.pkl"))
    build_network(name, 1000).load_state_dict(found, strict=True)
    right = load_file(ASSETS / "weights" / f"tinytraining_{file}.safetensors")
    assert all(torch.equal(found[key].flatten(), right[key].flatten()) for key in right)
