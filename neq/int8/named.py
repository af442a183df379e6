"""Builds `int8:NAME` and `int8:FILE`, from files and from tiny-training's release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import neq.int8.head  # registers the classifier of codes
import neq.int8.onnx_file  # registers how it becomes ONNX
import neq.int8.training  # noqa: F401  # registers how its optimizer steps
from neq.config import WEIGHTS_BY_NAME, network
from neq.int8.description import IMAGE, Add, Conv, Description, Linear, Operation, Pool, Quantization
from neq.int8.int8_file import is_int8_file, read_int8
from neq.int8.network import Int8Network
from neq.int8.rebuild import described_recipe
from neq.int8.tiny_training import IMAGE_QUANTIZATION, read_tiny_training
from neq.networks.downloads import cached_file, download_once, not_loaded
from neq.networks.weights import load_weights
from neq.utils.errors import UserError, shown
from neq.wings.int8 import PUBLISHED, RECORDED

RELEASE = (
    "https://raw.githubusercontent.com/mit-han-lab/tiny-training/"
    "7bf8e05bbeebda76cbf2ea2dd596dedee7e3f343/algorithm/assets/mcu_models"
)
SHA256 = {
    "mbv2-w0.35": "310d2871c50a89af9f11928e28418729984c2e402cf68560a19b6cbb75854163",
    "mcunet-5fps": "4de2e06ed39041fc3609de806461a9e1d1f82f186927474bd9e9b0de756a0f00",
    "proxyless-w0.3": "0da06d029506a36e5a5d0822493cdae11f37ba78662f9aca25ba5b3c958cf8e1",
}
_CLASSES = 1000
_RELU6, _PROJECTED = Quantization(6 / 255, -128), Quantization(0.1, 0)


def build(net_name: str, weights: str, weights_key: str | None) -> nn.Module:
    """An int8 network; its classifier is that of the weights.

    Args:
        net_name: `int8:NAME`, or `int8:FILE`.
        weights: "default" (tiny-training's), "none" (random), or a file: of tiny-training, of `write_int8`,
            or a run's. Of `int8:file` it is the network's own file.
        weights_key: of a checkpoint, as in `read_weights`.

    Raises:
        UserError: weights that are unavailable, damaged, or of another network.
    """
    name = net_name.partition(":")[2]
    if name not in PUBLISHED:
        return _of_file(net_name, weights if name == RECORDED else name)
    if weights == "none":
        return Int8Network(untrained(name))
    path = _published(net_name, PUBLISHED[name]) if weights == "default" else Path(weights).expanduser()
    if path.suffix != ".pkl" and not is_int8_file(path):
        made = Int8Network(untrained(name))
        load_weights(made, made.head, weights, weights_key)
        return made
    found = read_file(path)
    shapes = [[(each.name, each.weight.shape) for each in of.convs] for of in (found, untrained(name))]
    if shapes[0] != shapes[1]:
        raise UserError(f"weights {shown(weights)} are of another network than {net_name}; take another file")
    return Int8Network(found)


def read_file(file: str | Path) -> Description:
    """The int8 network in a file of tiny-training or of `write_int8`.

    Raises:
        UserError: no such file, a damaged one, or one of something else.
    """
    path = Path(file).expanduser()
    with torch.device("cpu"):  # values are checked, which the meta device has none of
        return read_tiny_training(path) if path.suffix == ".pkl" else read_int8(path)


def describe_file(file: str) -> Mapping[str, object]:
    """What the catalog says of the network in a file.

    Raises:
        UserError: as of `read_file`.
    """
    found = read_file(file)
    return {
        "file": file,
        "input_size": found.images.size,
        "mean_std": (found.images.mean, found.images.std),
        "convs": len(found.convs),
        "conv_weights": sum(each.weight.numel() for each in found.convs),
    }


def _of_file(net_name: str, file: str) -> nn.Module:
    """The network in a file, which brings a recipe that needs no file."""
    if file in WEIGHTS_BY_NAME:
        raise UserError(f"net_name {net_name!r} needs its file; give net_name int8:FILE")
    # Its classes are those of what it was made for, not of a run.
    made = Int8Network(replace(read_file(file), classes=()))
    made.neq_recipe = described_recipe  # type: ignore[assignment]
    return made


def untrained(name: str) -> Description:
    """An int8 network with random weights, drawn from torch's random state.

    Args:
        name: of a network of the MCUNet family in the catalog, without a feature mix.
    """
    entry = network(name)
    assert entry.first is not None
    with torch.device("cpu"):  # values are checked, which the meta device has none of
        operations = tuple(_operations(entry.first, entry.rows))
        channels, pool = entry.rows[-1][1], Pool("pool", (operations[-1].name,), operations[-1].output)
        head = Linear("classifier", ("pool",), torch.zeros(_CLASSES, channels), torch.zeros(_CLASSES))
    return Description(IMAGE_QUANTIZATION, (*operations, pool), head)


def _operations(first: int, rows: tuple[tuple[int, int, int, int], ...]) -> Iterator[Operation]:
    """The body without its pool; rows as of `MCUNet`."""
    last: Operation = _conv("first_conv", IMAGE, (3, first), 3, 2, 1, _RELU6)
    yield last
    channels = first
    for number, (expansion, outputs, stride, kernel) in enumerate(rows):
        start, name, hidden = last.name, f"blocks.{number}", channels * expansion
        if expansion != 1:
            last = _conv(f"{name}.pointwise1", start, (channels, hidden), 1, 1, 1, _RELU6)
            yield last
        last = _conv(f"{name}.depthwise", last.name, (1, hidden), kernel, stride, hidden, _RELU6)
        yield last
        last = _conv(f"{name}.pointwise2", last.name, (hidden, outputs), 1, 1, 1, _PROJECTED)
        yield last
        if stride == 1 and channels == outputs:
            last = Add(f"{name}.residual", (start, last.name), _PROJECTED)
            yield last
        channels = outputs


def _conv(
    name: str,
    source: str,
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    groups: int,
    output: Quantization,
) -> Conv:
    width, outputs = channels
    weight = torch.randint(-127, 128, (outputs, width, kernel, kernel), dtype=torch.int8)
    deviation = (2 / weight[0].numel()) ** 0.5  # of He's initialization; that of the codes is 73
    scales = torch.full((outputs,), deviation / 73)
    bias = torch.zeros(outputs, dtype=torch.int32)
    return Conv(name, (source,), output, weight, bias, scales, stride, groups)


def _published(net_name: str, name: str) -> Path:
    """A file of tiny-training, from torch's cache or else from the network."""
    url, file = f"{RELEASE}/{name}.pkl", cached_file(f"tiny-training_{name}.pkl")
    try:
        download_once(url, file, SHA256[name])
    except Exception as error:  # a download fails in many ways
        raise not_loaded(net_name, "tiny-training", url, file, error) from error
    return file
