"""Networks by name, with a head of the wanted size."""

from neq.networks.build import build_network
from neq.networks.heads import head_name, replace_head
from neq.networks.mcunet import MCUNet
from neq.networks.weights import load_weights, read_weights

__all__ = ["MCUNet", "build_network", "head_name", "load_weights", "read_weights", "replace_head"]
