"""Small int8 networks, and files as tiny-training publishes them."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import torch

from neq.int8 import (
    Add,
    Conv,
    Description,
    Images,
    Linear,
    MaxPool,
    Multiply,
    Pool,
    Quantization,
    Table,
    read_tiny_training,
)

IMAGE = (2 / 255, 0)
RELU6 = (6 / 255, -128)


def conv(rng, inputs, outputs, kernel, x, y, stride=1, groups=1):
    """A convolution as tiny-training's files hold it; x and y: scale and zero point of input and output."""
    fan_in = inputs // groups * kernel**2
    w_scales = rng.uniform(0.5, 1.0, outputs).astype(np.float32) * np.float32(y[0] / x[0] / fan_in**0.5 / 40)
    params = {
        "weight": rng.integers(-127, 128, (outputs, inputs // groups, kernel, kernel)).astype(np.int8),
        "bias": rng.integers(-2000, 2000, outputs).astype(np.int32),
        **{"x_scale": x[0], "x_zero": x[1], "y_scale": y[0], "y_zero": y[1]},
        "w_scales": w_scales,
    }
    return {
        **{"in_channel": inputs, "out_channel": outputs, "kernel_size": (kernel, kernel)},
        **{"stride": stride, "groups": groups, "depthwise": groups > 1, "act": None},
        **{"in_shape": 16, "out_shape": 16 // stride, "params": params},
    }


def content(seed=0):
    """A network of two blocks, the second with a residual: 3 -> 8 -> 8 -> 8 channels, 5 classes."""
    rng = np.random.default_rng(seed)
    first, second, added = (0.05, 7), (0.06, -3), (0.08, 4)
    blocks = [
        {
            "pointwise1": None,
            "depthwise": conv(rng, 8, 8, 3, RELU6, RELU6, groups=8),
            "pointwise2": conv(rng, 8, 8, 1, RELU6, first),
            **{"residual": None, "se": None},
        },
        {
            "pointwise1": conv(rng, 8, 16, 1, first, RELU6),
            "depthwise": conv(rng, 16, 16, 5, RELU6, RELU6, groups=16),
            "pointwise2": conv(rng, 16, 8, 1, RELU6, second),
            "residual": {
                **{"in_channel": 8, "in_shape": 8},
                "params": {"x_scale": first[0], "x_zero": 7, "y_scale": added[0], "y_zero": 4},
            },
            "se": None,
        },
    ]
    classifier = conv(rng, 8, 5, 1, added, (0.1, 0))
    for key in ("depthwise", "act", "in_shape", "out_shape"):
        del classifier[key]
    return {
        "first_conv": conv(rng, 3, 8, 3, IMAGE, RELU6, stride=2),
        **{"blocks": blocks, "feature_mix": None, "classifier": classifier},
    }


def write(path, data, protocol=2):
    """Writes a file as tiny-training does; data: bytes of a pickle, or what is to be pickled."""
    with zipfile.ZipFile(path, "w") as archive:
        whole = data if isinstance(data, bytes) else pickle.dumps(data, protocol)
        archive.writestr("archive/data.pkl", whole)
        archive.writestr("archive/version", "3\n")
    return path


def description(folder, seed=0):
    """The network of `content`, read from a file."""
    return read_tiny_training(write(folder / "toy.pkl", content(seed)))


def images(count=4, side=16, seed=0):
    """Normalized images, float32 [count, 3, side, side]; none of their codes is a matter of rounding."""
    pixels = np.random.default_rng(seed).integers(-128, 128, (count, 3, side, side))
    return torch.from_numpy((pixels * IMAGE[0]).astype(np.float32))


def table(rng, name, source, output):
    """A table of a function that rises and falls, with slopes of any size."""
    values = np.clip(np.rint(np.cumsum(rng.uniform(-2, 3, 256)) - 120), -128, 127)
    slopes = torch.from_numpy(rng.uniform(-1, 2, 256).astype(np.float32))
    return Table(name, (source,), output, torch.from_numpy(values.astype(np.int8)), slopes)


def excited(seed=0):
    """A network with squeeze-and-excitation, max pooling, tables and a hidden layer of its classifier."""
    rng = np.random.default_rng(seed)
    image, relu, signed = Quantization(*IMAGE), Quantization(6 / 255, -128), Quantization(0.05, 7)
    gate, product, added = Quantization(1 / 255, -128), Quantization(0.03, -3), Quantization(0.08, 4)

    def made(name, source, inputs, outputs, kernel, x, y, stride=1, groups=1):
        held = conv(rng, inputs, outputs, kernel, (x.scale, x.zero), (y.scale, y.zero), stride, groups)
        params = held["params"]
        tensors = (torch.from_numpy(params[key]) for key in ("weight", "bias", "w_scales"))
        return Conv(name, (source,), y, *tensors, stride, groups)

    operations = (
        made("stem", "image", 3, 8, 3, image, relu, stride=2),
        MaxPool("max", ("stem",), relu, 3, 2, 1),
        made("block.expand", "max", 8, 16, 1, relu, signed),
        table(rng, "block.act", "block.expand", product),
        Pool("block.pool", ("block.act",), product),
        made("block.squeeze", "block.pool", 16, 4, 1, product, relu),
        made("block.excite", "block.squeeze", 4, 16, 1, relu, signed),
        table(rng, "block.gate", "block.excite", gate),
        Multiply("block.scale", ("block.act", "block.gate"), product),
        made("block.project", "block.scale", 16, 8, 1, product, signed),
        Add("block.add", ("max", "block.project"), added),
        Multiply("square", ("block.add", "max"), signed),
        Pool("pool", ("square",), signed),
        made("hidden", "pool", 8, 12, 1, signed, signed),
        table(rng, "hidden_act", "hidden", product),
    )
    weight, bias = (torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((5, 12), 5))
    images_ = Images(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Description(
        image, operations, Linear("fc", ("hidden_act",), weight, bias), images_, tuple("abcde")
    )
