"""What the tests of the search share: a toy's costs, and measurements whose gains add up."""

import itertools
import math
from contextlib import contextmanager

import torch

from neq.networks.safetensors_file import checked_bytes
from neq.scheme_search import Measured, SchemeCosts
from neq.selection import StaticScheme
from tests.training.runs import run_of


@contextmanager
def costs_of(folder, **settings):
    """The costs of the toy's schemes in a run."""
    with run_of(folder, norm_mode="frozen", momentum=0.0, **settings) as (training, _):
        yield SchemeCosts(training)


def additive(scheme):
    """The gain of a scheme of which every part counts by itself, points."""
    listed = zip(scheme.indices, scheme.ratios, strict=True)
    return sum(math.sqrt(share) * (1 + conv % 3) for conv, share in listed) + 0.25 * scheme.n_bias_update


def every_scheme(costs, biases, shares):
    """All schemes of the toy."""
    for ratios in itertools.product((0.0, *shares), repeat=len(costs.convs)):
        for count in biases:
            yield StaticScheme(tuple(range(len(ratios))), ratios, count)


class Stub:
    """Measures schemes without training; `asked` holds all of them by their purpose.

    Args:
        gain: of a scheme; none where it diverges.
        runs: folders that every result names.
    """

    def __init__(self, gain=additive, runs=()):
        self.gain, self.asked, self.runs = gain, {}, tuple(map(str, runs))

    def __call__(self, name, schemes):
        self.asked[name] = list(schemes)
        gains = {scheme: self.gain(scheme) for scheme in schemes}
        found = {scheme: gain for scheme, gain in gains.items() if gain is not None}
        return {scheme: Measured(50 + gain, 1.0, 40.0, self.runs) for scheme, gain in found.items()}


def fitted_head(costs, folder):
    """The folder of a run that has trained the head of the costs' network; its weights are drawn."""
    weights, stream = costs.training.network.state_dict(), torch.Generator().manual_seed(3)
    head = f"{costs.training.table.head}.weight"
    weights[head] = torch.randn(weights[head].shape, generator=stream)
    folder.mkdir()
    (folder / "config.yaml").write_text("")
    (folder / "best.safetensors").write_bytes(checked_bytes(weights))
    return folder
