"""Int8 networks: names `int8:NAME` and `int8:FILE`, and the section `int8` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Literal

from pydantic import Field

from neq.config.catalog import ZOO_INPUT, network, register_family
from neq.config.keys import register_section
from neq.config.schema import Section
from neq.utils.errors import unknown_name

# Name -> its file among those that tiny-training publishes, without the ending.
PUBLISHED = {"mcunet-in1": "mcunet-5fps", "mbv2-w0.35": "mbv2-w0.35", "proxyless-w0.3": "proxyless-w0.3"}
FILES = (".safetensors", ".pkl")
# What a run records in place of a file's path, which its weights name.
RECORDED = "file"


class Int8Settings(Section):
    """Training of int8 networks."""

    qas: bool = Field(True, description="of int8 networks: quantization-aware scaling of gradients")
    head: Literal["float", "quantized"] = Field(
        "float", description="of int8 networks: the classifier in floating point, or of codes"
    )


def describe(name: str) -> Mapping[str, object]:
    """The catalog entry of `int8:NAME`, or of `int8:FILE`.

    Raises:
        UserError: there is none, or a file that holds no int8 network.
    """
    entry = {"input_size": 128, "mean_std": ZOO_INPUT, "pretrained": True, "builder": "neq.int8.named:build"}
    if name == RECORDED:
        return entry
    if name.endswith(FILES):  # read by another module, since torch takes seconds to import
        return {**entry, **import_module("neq.int8.named").describe_file(name)}
    if name not in PUBLISHED:
        known = [f"int8:{each}" for each in PUBLISHED]
        raise unknown_name("net_name", f"int8:{name}", known, f"Or int8:FILE, a {' or '.join(FILES)} file.")
    plain = network(name)
    return {**entry, "convs": plain.convs, "conv_weights": plain.conv_weights}


register_family("int8", describe)
register_section("int8", Int8Settings)
