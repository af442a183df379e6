"""Collectives of the processes that train one run: each takes its share of every batch.

Processes wait for each other only in these methods. The result of a method is the same, bit for bit, on every
rank. With a single process nothing is exchanged and no value changes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neq.backward import average_gradients
from neq.backward.gradient_allreduce import Trainable

# Seconds that a process waits for another within an epoch before it gives the run up.
PATIENCE = 40.0
_POLL = 0.05
Summed = TypeVar("Summed", Tensor, int)


class ProcessLost(RuntimeError):
    """Another process of the run has ended, or does not respond."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, from the view of one of them.

    Args:
        rank: of this one, 0 .. count - 1; the first alone writes.
        count: of all.
        local_rank: of this one among those of its machine.
        local_count: of those of its machine.
        patience: seconds that one waits for another in an exchange.
        store: what they tell each other beside sums; none for a process alone.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    patience: float = PATIENCE
    store: dist.Store | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, value: Summed) -> Summed:
        """The sum of every process' value, added in float64.

        Args:
            value: a count, or a tensor of the same shape in all of them.
        """
        if self.count == 1:
            return value
        whole = self.sum_there(torch.as_tensor(value).detach().to("cpu", torch.float64))
        return int(whole) if isinstance(value, int) else whole.to(value)

    def sum_there(self, value: Tensor) -> Tensor:
        """The sum of every process' tensor, added on its device, in its own type."""
        return value if self.count == 1 else torch.stack(self._of_all(value)).sum(0)

    def mean(self, value: Tensor, weight: int) -> Tensor:
        """The mean of every process' value.

        Args:
            value: of the same shape in all of them; without weight it does not count, whatever it is.
            weight: how many observations it stands for; not 0 in all of them.
        """
        if self.count == 1:
            return value
        return self.sum(value * weight if weight else torch.zeros_like(value)) / self.sum(weight)

    def largest(self, value: int) -> int:
        """The largest of every process' numbers."""
        if self.count == 1:
            return value
        return int(torch.stack(self._of_all(torch.tensor(value))).max())

    def gather(self, own: Tensor) -> list[Tensor]:
        """Every process' tensor, by rank.

        Args:
            own: uint8 [n], n of its own in each of them.
        """
        if self.count == 1:
            return [own]
        lengths = self.sum(torch.eye(self.count, dtype=torch.int64)[self.rank] * len(own)).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(own)] = own
        found = self._of_all(padded)
        return [each[:length].clone() for each, length in zip(found, lengths, strict=True)]

    def average_gradients(self, trained: Trainable, share: float) -> None:
        """Averages the gradients of all trained values over the processes.

        Args:
            trained: a plan or the like after backward, of the same selection in every process.
            share: of the whole batch's images, those that this process' mean loss is over.
        """
        if self.count > 1:
            self._exchange(lambda: average_gradients(trained, share))

    def average_statistics(self, network: nn.Module, share: float) -> None:
        """Averages the running statistics of batch norms over the processes.

        Those of a plan's plain batch norms are the same in all of them already. Of others, the running mean
        becomes exactly what whole batches would have given; the running variance lacks the variance between
        the shares of a batch, which its correction for small samples makes good on average.
        """
        if self.count == 1:
            return
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
        found = [value for norm in norms for value in (norm.running_mean, norm.running_var)]
        statistics = [value for value in found if value is not None]
        if not statistics:
            return
        # In float64: what is the same in every process comes out as it was.
        flat = self.sum_there(torch.cat([value.double() for value in statistics]) * share)
        for value, mean in zip(statistics, flat.split([len(value) for value in statistics]), strict=True):
            value.copy_(mean)

    def check_same(self, what: str, values: Iterable[object]) -> None:
        """Checks that every process holds the same tensors, to the last bit.

        Args:
            what: they are, as an error names them.
            values: those that are no tensors do not count.

        Raises:
            RuntimeError: they differ; in every process.
        """
        if self.count == 1:
            return
        digest = hashlib.blake2b(digest_size=8)
        for value in values:
            if isinstance(value, Tensor):
                flat = value.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
        found = self._of_all(torch.tensor(int.from_bytes(digest.digest(), "big", signed=True)))
        if any(int(other) != int(found[0]) for other in found):
            raise RuntimeError(f"{what} differ between the processes; are they on machines of one kind?")

    def announce(self, name: str, value: int = 1) -> None:
        """Announces a number to the other processes, once per name."""
        if self.store is not None:
            self.store.set(f"{name}/{self.rank}", str(value))

    def announced(self, name: str, rank: int = 0) -> int:
        """The number that a process announces under a name; waits for it without a timeout."""
        return int(self._announced(f"{name}/{rank}"))

    def of_first(self, name: str, compute: Callable[[], str]) -> str:
        """What rank 0 computes, once per name; the others wait for it without a timeout."""
        if self.store is None:
            return compute()
        if self.is_first:
            self.store.set(name, compute())
        return self._announced(name).decode()

    def meet(self, name: str) -> None:
        """A barrier without a timeout."""
        self.announce(name)
        for rank in range(self.count):
            if rank != self.rank:
                self.announced(name, rank)

    @contextmanager
    def first_alone(self, name: str) -> Iterator[None]:
        """Runs its block on rank 0 first, then on the others, which find what rank 0 has downloaded."""
        if not self.is_first:
            self.announced(name)
        yield
        if self.is_first:
            self.announce(name)

    def _announced(self, key: str) -> bytes:
        assert self.store is not None
        while not self.store.check([key]):
            time.sleep(_POLL)
        value: bytes = self.store.get(key)
        return value

    def _of_all(self, value: Tensor) -> list[Tensor]:
        """Every process' tensor, by rank; of a few values six times as fast over gloo as their reduction."""
        found = [torch.empty_like(value) for _ in range(self.count)]
        self._exchange(lambda: dist.all_gather(found, value.contiguous()))
        return found

    def _exchange(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            time.sleep(1)  # a signal that stops all processes reaches this one too, and goes first
            raise ProcessLost(
                f"another process of the run has ended, or has not answered for {self.patience:.0f} s"
            ) from error


SINGLE_PROCESS = ProcessGroup()
