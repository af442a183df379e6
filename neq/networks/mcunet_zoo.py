"""The ImageNet weights of MCUNet's model zoo, downloaded once."""

from __future__ import annotations

from neq.networks.downloads import cached_file, download_once, not_loaded
from neq.networks.mcunet import MCUNet
from neq.networks.weights import load_weights

RELEASE = "https://hanlab18.mit.edu/projects/tinyml/mcunet/release"
CLASSES = 1000


def load_zoo_weights(network: MCUNet, net_name: str, checkpoint: str) -> None:
    """Loads a checkpoint of the zoo, from torch's cache or else from the network.

    The zoo publishes no checksums: what arrives must be tensors that fit.

    Args:
        network: with a head of CLASSES outputs; changed in place.
        net_name: its name as the user gave it.
        checkpoint: its name in the zoo.

    Raises:
        UserError: weights that are unavailable, damaged, or of another network.
    """
    url, file = f"{RELEASE}/{checkpoint}.pth", cached_file(f"{checkpoint}.pth")
    try:
        download_once(url, file)
        load_weights(network, "classifier", str(file))
    except Exception as error:  # a damaged file fails in many ways
        raise not_loaded(net_name, "the MCUNet model zoo", url, file, error) from error
