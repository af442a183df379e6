"""Monte Carlo tree search of strategies: trials go where they have paid so far.

At a node with untried actions one is drawn at random, and so on down to a leaf. At any other the child with
untried strategies is chosen that has the largest

    mean + factor sqrt(2 ln N / n)

with N and n the trials of node and child. By default rewards are scaled by the range seen so far, since
accuracies differ by hundredths, and a trial in flight counts as one of the worst reward, so that several are
spread (virtual loss). The published form takes rewards as they are, a factor of 2, and for a child whose only
trials are in flight a random whole number, above any accuracy.

Source: Kang et al., "SyncNAS", LCTES 2023, code; Chaslot et al., "Parallel Monte-Carlo Tree Search", CG 2008.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from neq.partition.spaces import Path, Space, space
from neq.partition.strategies import Sync

FACTOR, PUBLISHED_FACTOR = 0.1, 2.0


@dataclass
class Node:
    """What is known below a path.

    Args:
        trials: with a result.
        valid: those among them for which there are widths.
        total: of the rewards of these.
        in_flight: trials without a result.
    """

    trials: int = 0
    valid: int = 0
    total: float = 0.0
    in_flight: int = 0


class TreeSearch:
    """A search of strategies that is asked for one and told its reward, in any order.

    Draws depend on the seed and on how many were asked for: a search that is told its former results again
    goes on as it would have.

    Args:
        seed: of the draws.
        order: `stage`, or `published` for SyncNAS' order of decisions.
        factor: of the term of exploration; None: that of the form.
        is_published: whether rewards, factor and trials in flight count as in SyncNAS.
    """

    def __init__(
        self, seed: int = 0, order: str = "stage", factor: float | None = None, is_published: bool = False
    ) -> None:
        self.space: Space = space(order)
        self.nodes: dict[Path, Node] = {(): Node()}
        self._seed, self._is_published = seed, is_published
        self._factor = factor if factor is not None else PUBLISHED_FACTOR if is_published else FACTOR
        self._low, self._high = math.inf, -math.inf

    def ask(self) -> Sync | None:
        """A strategy that was not asked for before; None where there is none left."""
        root = self.nodes[()]
        count = root.trials + root.in_flight
        if count >= self.space.leaves(()):
            return None
        stream = np.random.default_rng([self._seed, count])
        path: Path = ()
        while actions := self.space.actions(path):
            children = [(*path, action) for action in actions]
            open_ones = [child for child in children if self._taken(child) < self.space.leaves(child)]
            untried = [child for child in open_ones if child not in self.nodes]
            if untried:
                path = untried[stream.integers(len(untried))]
            else:
                values = [self._value(path, child, stream, len(open_ones)) for child in open_ones]
                path = open_ones[int(np.argmax(values))]
        for node in self._nodes_of(path):
            node.in_flight += 1
        return self.space.sync_of(path)

    def tell(self, sync: Sync, reward: float | None) -> None:
        """Records a result, of a strategy that was asked for or of another.

        Args:
            sync: the strategy.
            reward: None: there are no widths for it, which counts as 0.
        """
        path = self.space.path_of(sync)
        leaf = self.nodes.get(path, Node())
        for node in self._nodes_of(path):
            node.in_flight -= leaf.in_flight > 0 and node is not leaf
            node.trials += 1
            node.valid += reward is not None
            node.total += reward or 0.0
        leaf.in_flight = 0
        if reward is not None:
            self._low, self._high = min(self._low, reward), max(self._high, reward)

    def _taken(self, path: Path) -> int:
        node = self.nodes.get(path)
        return 0 if node is None else node.trials + node.in_flight

    def _nodes_of(self, path: Path) -> Iterator[Node]:
        for length in range(len(path) + 1):
            yield self.nodes.setdefault(path[:length], Node())

    def _value(self, path: Path, child: Path, stream: np.random.Generator, count: int) -> float:
        parent, node = self.nodes[path], self.nodes[child]
        if self._is_published:
            if node.trials == 0:
                return float(stream.integers(1, count + 1))
            seen, mean, above = node.trials, node.total / node.trials, max(parent.trials, 1)
        else:
            seen, above = node.trials + node.in_flight, parent.trials + parent.in_flight
            spread = self._high - self._low
            mean = (node.total - node.valid * self._low) / spread / seen if spread > 0 else 0.0
        return mean + self._factor * math.sqrt(2 * math.log(above) / seen)
