"""The exchange of feature maps between two devices, over torch.distributed's gloo.

Gloo sends contiguous memory. A map in channels_last [B, C, H, W] is sent as its permuted view [B, H, W, C],
which is contiguous: nothing is copied. What is received is written to buffers that are allocated once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from neq.partition.meeting import Meeting, PeerLost, listening, meet
from neq.utils.errors import first_line, shown

_INTERFACE = "GLOO_SOCKET_IFNAME"


class Peer:
    """The other device.

    Args:
        rank: of this one, 0 or 1.
        meeting: a connection to it.
        timeout: seconds that an exchange may take.
    """

    def __init__(self, rank: int, meeting: Meeting, timeout: float) -> None:
        self.rank, self.meeting = rank, meeting
        self._other, self._timeout = 1 - rank, timedelta(seconds=timeout)
        self._buffers: dict[object, Tensor] = {}

    def exchange(self, own: Tensor, key: object = None) -> Tensor:
        """What the other device sends, which gets this one's.

        Args:
            own: a map [B, C, H, W] of the same shape on both, best in channels_last.
            key: of the exchange: the result stays as it is until the next one of this key and shape.

        Raises:
            PeerLost: the other device has ended, or is late.
        """
        buffer = self._buffer(tuple(own.shape), own.dtype, key)
        sent = own.permute(0, 2, 3, 1).contiguous()  # which it is already in channels_last
        self._wait(dist.isend(sent, self._other), dist.irecv(buffer.permute(0, 2, 3, 1), self._other))
        return buffer

    def send(self, values: Tensor) -> None:
        """Sends a tensor; a map [B, C, H, W] as of `exchange`."""
        flat = values.permute(0, 2, 3, 1) if values.dim() == 4 else values
        self._wait(dist.isend(flat.contiguous(), self._other))

    def receive(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """What the other device sends; it stays until the next of its shape."""
        buffer = self._buffer(shape, dtype, "received")
        self._wait(dist.irecv(buffer.permute(0, 2, 3, 1) if len(shape) == 4 else buffer, self._other))
        return buffer

    def _buffer(self, shape: tuple[int, ...], dtype: torch.dtype, key: object) -> Tensor:
        """Memory to receive in, in channels_last; the same every time."""
        name = (shape, dtype, key)
        if name not in self._buffers:
            if len(shape) == 4:
                batch, channels, height, width = shape
                made = torch.empty((batch, height, width, channels), dtype=dtype).permute(0, 3, 1, 2)
            else:
                made = torch.empty(shape, dtype=dtype)
            self._buffers[name] = made
        return self._buffers[name]

    def _wait(self, *works: dist.Work | None) -> None:
        try:
            for work in works:
                if work is not None:
                    work.wait(self._timeout)
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> PeerLost:
        text = first_line(error)
        if "imed out" in text or "timeout" in text:
            return PeerLost(f"the other device has not answered for {self._timeout.total_seconds():g} s")
        return PeerLost("the other device has ended, or its connection has")


@contextmanager
def open_peer(
    address: tuple[str, int],
    rank: int,
    hello: Mapping[str, str],
    timeout: float,
    server: socket.socket | None = None,
) -> Iterator[Peer]:
    """The other device, met and connected.

    Args:
        address, rank, hello, timeout, server: as of `neq.partition.meeting.meet`.

    Raises:
        UserError: the address cannot be used, or the devices do not run the same.
        PeerLost: the other device has not come, has ended, or is late.
    """
    meeting = meet(address, rank, hello, timeout, server)
    try:
        _join(meeting, rank, timeout)
        yield Peer(rank, meeting, timeout)
    finally:
        meeting.close()
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()


def _join(meeting: Meeting, rank: int, timeout: float) -> None:
    """Makes the process group of both, over the interface on which they have met."""
    limit = timedelta(seconds=timeout)
    try:
        if rank == 0:
            server = listening(meeting.own_host, 0)
            port = server.getsockname()[1]
            store = dist.TCPStore(
                meeting.own_host, port, 2, True, limit, wait_for_workers=False,
                master_listen_fd=server.detach(),
            )  # fmt: skip
            meeting.tell({"port": port})
        else:
            port = meeting.hear().get("port")
            if type(port) is not int or not 0 < port < 65536:
                raise ValueError(f"port {shown(port)}")
            store = dist.TCPStore(meeting.peer_host, port, 2, False, limit, wait_for_workers=False)
        with _interface(meeting.own_host):
            dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, PeerLost):
            raise
        raise PeerLost(f"the two devices could not be connected ({first_line(error)})") from error


@contextmanager
def _interface(host: str) -> Iterator[None]:
    """Has gloo use the network interface with an address, where the user names none."""
    name = next(
        (
            name
            for name, addresses in psutil.net_if_addrs().items()
            for each in addresses
            if each.family in (socket.AF_INET, socket.AF_INET6) and each.address.partition("%")[0] == host
        ),
        None,
    )
    if name is None or _INTERFACE in os.environ:
        yield
        return
    os.environ[_INTERFACE] = name
    try:
        yield
    finally:
        del os.environ[_INTERFACE]
