"""Int8 networks: names `int8:NAME`, and the section `int8` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from neq.config.catalog import ZOO_INPUT, network, register_family
from neq.config.keys import register_section
from neq.config.schema import Section
from neq.utils.errors import unknown_name

# Name -> its file among those that tiny-training publishes, without the ending.
PUBLISHED = {"mcunet-in1": "mcunet-5fps", "mbv2-w0.35": "mbv2-w0.35", "proxyless-w0.3": "proxyless-w0.3"}


class Int8Settings(Section):
    """Training of int8 networks."""

    qas: bool = Field(True, description="of int8 networks: quantization-aware scaling of gradients")


def describe(name: str) -> Mapping[str, object]:
    """The catalog entry of `int8:NAME`.

    Raises:
        UserError: there is none.
    """
    if name not in PUBLISHED:
        raise unknown_name("net_name", f"int8:{name}", [f"int8:{each}" for each in PUBLISHED])
    plain = network(name)
    return {
        "input_size": 128,
        "convs": plain.convs,
        "conv_weights": plain.conv_weights,
        "mean_std": ZOO_INPUT,
        "pretrained": True,
        "builder": "neq.int8.named:build",
    }


register_family("int8", describe)
register_section("int8", Int8Settings)
