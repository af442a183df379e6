"""Running statistics for each domain: a network's norms hold those of the target, this holds the source's.

Evaluations read the network, and so the statistics of the target. Inside `used` they and the source's have
changed places; affines are common to both.

Source: Chang et al., "Domain-Specific Batch Normalization for Unsupervised Domain Adaptation", CVPR 2019,
which has an affine for each domain too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from neq.backward.batch_norms import batch_norms


class SourceStatistics:
    """The second set of buffers of a network's batch norms; it starts as a copy of the first.

    Args:
        network: the plain one, on the device.
    """

    def __init__(self, network: nn.Module) -> None:
        held = [norm._buffers for norm in batch_norms(network)]
        self._network = [
            (buffers, name) for buffers in held for name, value in buffers.items() if value is not None
        ]
        self._source = [value.clone() for value in self._in_network()]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, the network's norms hold the statistics of the source, and update those."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def take(self) -> None:
        """Copies the statistics that the network holds."""
        for mine, value in zip(self._source, self._in_network(), strict=True):
            mine.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """By the place of a buffer among those of all norms."""
        return {str(place): value for place, value in enumerate(self._source)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned.

        Raises:
            ValueError: it is of other norms.
        """
        if [value.shape for value in state.values()] != [value.shape for value in self._source]:
            raise ValueError("the checkpoint has no running statistics of the source for these norms")
        for mine, value in zip(self._source, state.values(), strict=True):
            mine.copy_(value)

    def _in_network(self) -> list[Tensor]:
        found = [buffers[name] for buffers, name in self._network]
        return [value for value in found if value is not None]

    def _exchange(self) -> None:
        # The tensors change places, not their values: what a graph holds of them stays as it is.
        for place, (buffers, name) in enumerate(self._network):
            value, buffers[name] = buffers[name], self._source[place]
            assert value is not None
            self._source[place] = value
