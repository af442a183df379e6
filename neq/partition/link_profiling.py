"""Measures the link between two devices: exchanges of a few sizes, both ways at once, as at a sync."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from math import isfinite
from statistics import median
from typing import Any

import torch

from neq import __version__
from neq.partition.device_profile import LinkProfile
from neq.partition.exchange import Peer, open_peer
from neq.partition.meeting import AGREED, PeerLost, listening

# Of what each device sends; up to more than the largest map of the published networks.
SIZES = (4, 4_000, 20_000, 80_000, 400_000, 1_600_000, 3_200_000)
_LOOPBACK = "127.0.0.1"
_WARM_UP = 3


def measure_link(
    address: tuple[str, int], rank: int, timeout: float, repeats: int, sizes: Sequence[int] = SIZES
) -> LinkProfile:
    """The link to another device, which does the same with the other rank.

    Args:
        address: host and port of device 0.
        rank: of this device.
        timeout: seconds to wait for the other one.
        repeats: exchanges of each size.
        sizes: bytes, multiples of 4; the same on both.

    Raises:
        UserError: an address that cannot be used.
        PeerLost: the other device does not come, or is late.
    """
    with open_peer(address, rank, _hello(repeats, sizes), timeout) as peer:
        return _measured(peer, repeats, sizes, peer.meeting.peer_host)


def measure_loopback(timeout: float, repeats: int, sizes: Sequence[int] = SIZES) -> LinkProfile:
    """The link between two processes of this machine.

    Args:
        timeout, repeats, sizes: as of `measure_link`.
    """
    server = listening(_LOOPBACK, 0)
    address = (_LOOPBACK, server.getsockname()[1])
    other = multiprocessing.get_context("spawn").Process(
        target=_answer, args=(address, timeout, repeats, tuple(sizes)), daemon=True
    )
    other.start()
    try:
        with open_peer(address, 0, _hello(repeats, sizes), timeout, server) as peer:
            return _measured(peer, repeats, sizes, "loopback")
    finally:
        other.join(1)
        other.kill()


def fitted(measured: Sequence[tuple[int, float]], peer: str) -> LinkProfile:
    """Alpha and beta of T = alpha + n / beta: least squares of relative errors, neither below 0.

    Args:
        measured: (n bytes, T milliseconds), of two sizes or more.
        peer: as of `LinkProfile`.

    Raises:
        PeerLost: larger exchanges do not take longer.
    """
    import numpy as np
    from scipy.optimize import nnls

    counts, times = np.array(measured, dtype=float).T
    unit = counts.max()
    (alpha, slope), _ = nnls(np.stack([1 / times, counts / unit / times], 1), np.ones(len(times)))
    if slope <= 0:
        raise PeerLost("the link could not be measured: larger exchanges do not take longer; measure again")
    return LinkProfile(float(alpha), float(unit / slope), tuple(measured), peer)


def _measured(peer: Peer, repeats: int, sizes: Sequence[int], name: str) -> LinkProfile:
    times: list[list[float]] = []
    for number, count in enumerate(sizes):
        own, start = torch.zeros(1, 1, 1, count // 4), torch.zeros(1, 1, 1, 1)
        of_size = []
        for _ in range(_WARM_UP + repeats):
            peer.exchange(start, "start")
            before = time.perf_counter()
            peer.exchange(own, number)
            of_size.append(time.perf_counter() - before)
        times.append(of_size[_WARM_UP:])
    peer.meeting.tell({"times": times})
    theirs: Any = peer.meeting.hear().get("times")
    try:
        # Both have started together: an exchange is over when the later one has what it waits for.
        later = [list(map(max, *both)) for both in zip(times, theirs, strict=True)]
        exchange = [1e3 * median(each) for each in later]
        if not all(map(isfinite, exchange)):
            raise ValueError("a time is not finite")
    except (TypeError, ValueError, OverflowError) as error:
        raise PeerLost("the other device has ended without its times") from error
    return fitted(list(zip(sizes, exchange, strict=True)), name)


def _answer(address: tuple[str, int], timeout: float, repeats: int, sizes: tuple[int, ...]) -> None:
    """The other process of a measurement on one machine."""
    torch.set_num_threads(1)
    measure_link(address, 1, timeout, repeats, sizes)


def _hello(repeats: int, sizes: Sequence[int]) -> dict[str, str]:
    what = f"{repeats} exchanges of {', '.join(map(str, sizes))} bytes"
    versions = {"neq": __version__, "torch": torch.__version__.partition("+")[0]}
    return {key: versions.get(key, what) for key in AGREED}
