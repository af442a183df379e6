import json
import socket
import threading
import time

import pytest

from neq.partition.meeting import AGREED, MAGIC, Meeting, PeerLost, listening, meet, parse_address
from neq.utils.errors import UserError
from tests.training.distributed.together import free_port

HELLO = {"manifest": "a" * 64, "model": "toy", "neq": "1.0", "torch": "2.9"}


def both(first, second=None, timeout=20.0, rank=1):
    """What both devices come to: a meeting, or the error."""
    at, found = ("127.0.0.1", free_port()), {}

    def one(of, hello):
        try:
            found[of] = meet(at, of, hello, timeout)
        except (UserError, PeerLost) as error:
            found[of] = error

    threads = [threading.Thread(target=one, args=each) for each in ((0, first), (rank, second or first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found[0], found[rank]


def test_devices_that_agree_meet_and_talk():
    first, second = both(HELLO)
    first.tell({"port": 1})
    assert second.hear() == {"port": 1}
    second.tell({"times": [[0.5]]})
    second.tell({"times": []})
    assert [first.hear(), first.hear()] == [{"times": [[0.5]]}, {"times": []}]
    assert first.own_host == second.peer_host == "127.0.0.1"
    first.close()
    with pytest.raises(PeerLost, match="the other device has ended"):
        second.hear()
    second.close()


@pytest.mark.parametrize("key", AGREED)
def test_devices_that_do_not_run_the_same_both_end(key):
    other = {**HELLO, key: "b" * 64 if key == "manifest" else "other"}
    for error, here in zip(both(HELLO, other), (HELLO, other), strict=True):
        assert isinstance(error, UserError)
        assert f"{AGREED[key]} is " in str(error)
        assert here[key][:5] in str(error).partition(" here")[0]


def test_device_1_comes_late_and_device_0_is_not_there():
    at = ("127.0.0.1", free_port())
    for rank, line in ((0, "device 1 has not come within 0.2 s"), (1, "device 0 has not been found at")):
        start = time.monotonic()
        with pytest.raises(PeerLost, match=line):
            meet(at, rank, HELLO, 0.2)
        assert time.monotonic() - start < 10


def test_an_address_that_cannot_be_used():
    with listening("127.0.0.1", 0) as server:
        at = ("127.0.0.1", server.getsockname()[1])
        with pytest.raises(UserError, match=rf"127.0.0.1:{at[1]} cannot be listened at .*in use"):
            meet(at, 0, HELLO, 1)
    with pytest.raises(UserError, match="cannot be listened at"):
        meet(("192.0.2.1", 29600), 0, HELLO, 1)  # reserved for documentation: of no machine


def test_a_server_of_something_else_is_no_device():
    with listening("127.0.0.1", 0) as server:
        at = ("127.0.0.1", server.getsockname()[1])

        def answer(text):
            connection, _ = server.accept()
            with connection:
                connection.sendall(text)
                connection.recv(1 << 16)
                time.sleep(0.05)

        for text, line in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no neq partition run"),
            (b"[1]\n", "is no neq partition run"),
            (b"[" * 9999 + b"\n", "is no neq partition run"),
            (b"x" * (1 << 21), "is no neq partition run|has ended"),
            (json.dumps({"magic": MAGIC, "rank": 1}).encode() + b"\n", "is no neq partition run of rank 0"),
            (b"", "has ended"),
        ):
            thread = threading.Thread(target=answer, args=(text,))
            thread.start()
            with pytest.raises(PeerLost, match=line):
                meet(at, 1, HELLO, 20)
            thread.join(60)


def test_a_server_that_says_nothing_is_left_in_time():
    with listening("127.0.0.1", 0) as server, pytest.raises(PeerLost, match=r"has not answered for 0.2 s"):
        meet(("127.0.0.1", server.getsockname()[1]), 1, HELLO, 0.2)


def test_whoever_else_connects_is_ignored():
    at, found = ("127.0.0.1", free_port()), []
    first = threading.Thread(target=lambda: found.append(meet(at, 0, HELLO, 30)))
    first.start()
    for content in (b"GET / HTTP/1.1\r\n\r\n", b"", json.dumps({"magic": MAGIC, "rank": 0}).encode() + b"\n"):
        until = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(at, 20) as stranger:
                    stranger.sendall(content)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until
                time.sleep(0.01)
    second = meet(at, 1, HELLO, 30)
    first.join(60)
    found[0].tell({"hello": 1})
    assert second.hear() == {"hello": 1}
    for each in (second, *found):
        each.close()


def test_a_peer_that_is_gone_cannot_be_told():
    one, other = socket.socketpair()
    meeting = Meeting.__new__(Meeting)
    meeting._connection, meeting._timeout, meeting._read = one, 5.0, b""
    other.close()
    with pytest.raises(PeerLost, match="the other device has ended"):
        meeting.tell({"times": ["x" * 1000] * 1000})
    one.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:65535", ("::1", 65535)), ("pi.local:80", ("pi.local", 80))],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":80", "pi", "pi:", "pi:0", "pi:65536", "pi:-1", "pi:٣", "80"])
def test_no_addresses(text):
    with pytest.raises(UserError, match="HOST:PORT is expected"):
        parse_address(text)
