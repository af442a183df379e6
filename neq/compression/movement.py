"""How far the neurons of a network moved in the run that trained it: velocity over a whole run.

A run keeps its best network; the one that it started from is built again, from the same weights and seed.
With y_s and y_b the raw output map of a neuron for one image in the start's and in the best network,

    phi = mean over images of <y_s, y_b> / (|y_s| |y_b|),    v = phi - 1,    |v| = 1 - phi,

which is the velocity of `neq.selection.velocity` after one epoch, if that epoch is the whole run:
phi_{-1} = 1 and v_{-1} = 0. So |v| is 0 for a neuron that responds as it did at the start, up to a scale,
and at most 2.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from neq.experiment.network import open_network
from neq.networks import ParameterSlice, neuron_table
from neq.results.best_network import BestNetwork
from neq.selection import VelocityState, similarity
from neq.utils.errors import UserError

# Name of a layer -> |v| of its neurons, float64 [neurons].
Movement = Mapping[str, Tensor]


def run_start(best: BestNetwork) -> nn.Module:
    """The network that a run started from, in eval mode on the CPU: its weights by name or file, its seed.

    Args:
        best: of the run, or a copy of it.

    Raises:
        UserError: the weights are not there any more, or the network was changed since.
    """
    network, _ = open_network(best.config, len(best.classes))
    now, then = (each.state_dict() for each in (best.network, network))
    if {name: each.shape for name, each in now.items()} != {name: each.shape for name, each in then.items()}:
        raise UserError(
            f"{best.folder} holds another network than its run started from: it was changed after training; "
            "fine-tune it, and give the folder of that run"
        )
    return network.eval()


def movement(best: BestNetwork, start: nn.Module, images: Tensor) -> Movement:
    """|v| of every neuron of a run's best network.

    Args:
        best: of the run.
        start: that it started from.
        images: [N, 3, S, S], as the network takes them, N above 0.
    """
    _, channels, height, width = images.shape
    table = neuron_table(best.network, (channels, height, width), head=best.head)
    whole = {name: (ParameterSlice(), tensor) for name, tensor in start.state_dict().items()}
    phi = similarity(best.network, table, images, whole)
    speed = VelocityState.start(len(table)).after_epoch(phi, 0.0, "published").velocity.abs()
    return {layer.name: speed[table.slice_of(layer.name)] for layer in table.layers}
