"""How two devices meet: a connection on which each says what it runs, before anything is exchanged."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from neq.utils.errors import UserError, shown

MAGIC = "neq partition 1"
_LONGEST = 1 << 22  # bytes of a message
_SAYS_HELLO = 5.0  # seconds in which who connects does so
_POLL = 0.1
# What has to be the same on both devices: key of a hello -> what it is.
AGREED = {"manifest": "the manifest", "model": "the model", "neq": "neq", "torch": "torch"}


class PeerLost(RuntimeError):
    """The other device has ended, or has not answered in time."""


def parse_address(text: str, flag: str = "--address") -> tuple[str, int]:
    """Host and port of `HOST:PORT`.

    Args:
        text: as the user gave it.
        flag: by which.

    Raises:
        UserError: it is none.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"{flag} {shown(text)} is not allowed: HOST:PORT is expected, as 127.0.0.1:29600")
    return host, int(port)


class Meeting:
    """A connection to the other device, for messages of JSON.

    Args:
        connection: a TCP connection.
        timeout: seconds that a message is waited for.
    """

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._connection, self._timeout, self._read = connection, timeout, b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def own_host(self) -> str:
        """The address of this device on the connection."""
        host: str = self._connection.getsockname()[0]
        return host

    @property
    def peer_host(self) -> str:
        """The address of the other device on the connection."""
        host: str = self._connection.getpeername()[0]
        return host

    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a message.

        Raises:
            PeerLost: it cannot be sent.
        """
        self._connection.settimeout(self._timeout)
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise PeerLost(f"the other device has ended ({_reason(error)})") from None

    def hear(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message.

        Args:
            timeout: seconds; none: that of the connection.

        Raises:
            PeerLost: none comes, or something else.
        """
        limit = self._timeout if timeout is None else timeout
        until = time.monotonic() + limit
        while b"\n" not in self._read:
            self._connection.settimeout(max(0.001, until - time.monotonic()))
            try:
                more = self._connection.recv(1 << 16)
            except TimeoutError:
                more = None
            except OSError as error:
                raise PeerLost(f"the other device has ended ({_reason(error)})") from None
            if more is None or time.monotonic() > until:
                raise PeerLost(f"the other device has not answered for {limit:g} s")
            if not more:
                raise PeerLost("the other device has ended")
            self._read += more
            if len(self._read) > _LONGEST:
                raise PeerLost("what answers is no neq partition run")
        line, _, self._read = self._read.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise PeerLost("what answers is no neq partition run")
        return message

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def meet(
    address: tuple[str, int],
    rank: int,
    hello: Mapping[str, str],
    timeout: float,
    server: socket.socket | None = None,
) -> Meeting:
    """Meets the other device, and checks that both run the same.

    Args:
        address: host and port of device 0.
        rank: of this device, 0 or 1.
        hello: values of AGREED.
        timeout: seconds to wait for the other device, and for each of its messages.
        server: of device 0, that listens at the address already; closed in the end.

    Raises:
        UserError: an address that cannot be used, or devices that do not run the same; on both.
        PeerLost: the other device does not come.
    """
    until = time.monotonic() + timeout
    own = {"magic": MAGIC, "rank": rank, **hello}
    if rank == 0:
        meeting, theirs = _accepted(server or listening(*address), own, until, timeout)
    else:
        meeting, theirs = _connected(address, own, until, timeout)
    differ = [key for key in AGREED if theirs.get(key) != hello[key]]
    if differ:
        meeting.close()
        found = "; ".join(
            f"{AGREED[key]} is {_short(hello[key])} here, {_short(theirs.get(key))} there" for key in differ
        )
        raise UserError(f"the two devices do not run the same: {found}; copy both files of one split")
    return meeting


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of this machine.

    Args:
        host: name or address.
        port: 0: any that is free.

    Raises:
        UserError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = _reason(error)
        raise UserError(
            f"--address {host}:{port} cannot be listened at ({reason}); give a free port of this machine"
        ) from None


def _accepted(
    server: socket.socket, own: Mapping[str, Any], until: float, timeout: float
) -> tuple[Meeting, dict[str, Any]]:
    """Waits for device 1; whoever else connects is ignored."""
    with server:
        while (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                connection, _ = server.accept()
            except TimeoutError:
                break
            meeting = Meeting(connection, timeout)
            try:
                meeting.tell(own)
                theirs = meeting.hear(min(_SAYS_HELLO, timeout))
            except PeerLost:
                theirs = {}
            if theirs.get("magic") == MAGIC and theirs.get("rank") == 1:
                return meeting, theirs
            meeting.close()
    raise PeerLost(f"device 1 has not come within {timeout:g} s; start it with --rank 1 and this address")


def _connected(
    address: tuple[str, int], own: Mapping[str, Any], until: float, timeout: float
) -> tuple[Meeting, dict[str, Any]]:
    """Connects to device 0, which may start later."""
    host, port = address
    while True:
        try:
            connection = socket.create_connection(address, max(0.001, until - time.monotonic()))
            break
        except socket.gaierror as error:
            raise UserError(f"--address {host}:{port} is unknown ({_reason(error)}); give another") from None
        except OSError as error:
            if time.monotonic() + _POLL > until:
                raise PeerLost(
                    f"device 0 has not been found at {host}:{port} within {timeout:g} s ({_reason(error)}); "
                    "start it with --rank 0 and this address"
                ) from None
            time.sleep(_POLL)
    meeting = Meeting(connection, timeout)
    try:
        meeting.tell(own)
        theirs = meeting.hear()
        if theirs.get("magic") != MAGIC or theirs.get("rank") != 0:
            raise PeerLost(f"what answers at {host}:{port} is no neq partition run of rank 0")
    except BaseException:
        meeting.close()
        raise
    return meeting, theirs


def _reason(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:  # Python's own text may name the address again
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def _short(value: object) -> str:
    """A value as a line shows it; of a hash its first digits."""
    text = value if isinstance(value, str) else shown(value)
    return text[:12] if len(text) == 64 else shown(text)
