"""Measured cost of a step: bytes saved for backward, seconds, peak memory."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor


class SavedBytes:
    """Counts the bytes that autograd saves for backward: each storage once, weights excluded.

    Args:
        weights: tensors whose storages do not count: parameters, buffers and chosen rows. (bf16 copies of
            weights that autocast makes are storages of their own, and count.)
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._excluded = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self._seen: dict[int, int] = {}

    @property
    def total(self) -> int:
        """Bytes seen so far."""
        return sum(self._seen.values())

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts what forward passes inside the context save."""

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._excluded:
                self._seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield


class StepClock:
    """Times training steps, data loading excluded.

    On CUDA only the first steps of an epoch are timed, since timing synchronizes the host with the device.

    Args:
        device: that steps run on.
        seconds: list that the times are appended to.
    """

    timed_on_cuda = 20

    def __init__(self, device: torch.device, seconds: list[float]) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = seconds

    @contextmanager
    def step(self) -> Iterator[None]:
        """Times the step inside the context."""
        if self._cuda and len(self._seconds) >= self.timed_on_cuda:
            yield
            return
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self._seconds.append(time.perf_counter() - start)

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def peak_memory(device: torch.device) -> tuple[int, str]:
    """The most memory used so far, in bytes, and what was counted.

    Returns:
        On CUDA torch's peak allocation on the device, else the maximum resident size of the process, which
        includes Python and the libraries.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "allocated on the device"
    return _peak_of_process(), "maximum of the process"


def forget_peak_memory(device: torch.device) -> None:
    """Resets `peak_memory`, where the system can, before another run in this process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_of_process() -> int:
    """Maximum resident size in bytes."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
