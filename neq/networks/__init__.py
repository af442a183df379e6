"""Networks by name, with a head of the wanted size."""

from neq.networks.build import build_network
from neq.networks.heads import head_name, replace_head
from neq.networks.mcunet import MCUNet

__all__ = ["MCUNet", "build_network", "head_name", "replace_head"]
