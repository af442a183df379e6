"""The published weights of tiny-training in the folded builds."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.v2 import functional as F

from neq.config import network
from neq.networks.build import build_network

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))
pytestmark = pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)


def photos(folder, size):
    """The labelled photos [N, 3, size, size], and their labels."""
    labels = json.loads((folder / "labels.json").read_text())
    images = []
    for name in labels:
        image = F.pil_to_tensor(Image.open(folder / name).convert("RGB"))
        image = F.resize(image, [round(size / 0.875) + 1], antialias=True)
        images.append(F.center_crop(image, [size, size]))
    return torch.stack(images).float() / 255, torch.tensor(list(labels.values()))


@pytest.mark.parametrize(
    ("name", "file", "top1"),
    [
        ("mbv2-w0.35_folded", "tinytraining_mbv2-w0.35", 0.545),
        ("mcunet-in1_folded", "tinytraining_mcunet-5fps", 0.67),
        ("proxyless-w0.3_folded", "tinytraining_proxyless-w0.3", 0.54),
    ],
)
def test_they_load_strictly_and_know_photos(name, file, top1):
    weights = load_file(ASSETS / "weights" / f"{file}.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"].flatten(1)  # a 1x1 conv there
    net = build_network(name, 1000).eval()
    net.load_state_dict(weights, strict=True)
    entry = network(name)
    images, labels = photos(ASSETS / "data" / "imagenet_sample", entry.input_size)
    images = F.normalize(images, entry.mean_std.mean, entry.mean_std.std)
    with torch.no_grad():
        right = net(images).argmax(1) == labels
    # A crop that lies one pixel elsewhere already moves this by up to 3 of 100 photos.
    assert right.float().mean().item() == pytest.approx(top1, abs=0.035)
