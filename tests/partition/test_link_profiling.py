import threading
from types import SimpleNamespace

import pytest

from neq.partition.link_profiling import _measured, fitted, measure_link, measure_loopback
from neq.partition.meeting import PeerLost
from tests.partition.devices import address


def test_alpha_and_beta_of_exchanges():
    measured = [(count, 0.25 + count / 1e6) for count in (4, 4000, 400_000, 4_000_000)]
    link = fitted(measured, "there")
    assert link.alpha_ms == pytest.approx(0.25)
    assert link.bytes_per_ms == pytest.approx(1e6)
    assert link.measured == tuple(measured)
    assert fitted([(4, 0.001), (8, 1.0), (80, 10.0)], "there").alpha_ms >= 0
    with pytest.raises(PeerLost, match="larger exchanges do not take longer"):
        fitted([(4, 1.0), (4000, 0.5)], "there")


@pytest.mark.slow
def test_the_link_between_two_processes():
    link = measure_loopback(60, 3, (4, 4_000_000))
    assert [count for count, _ in link.measured] == [4, 4_000_000]
    assert link.alpha_ms >= 0
    assert link.bytes_per_ms > 0
    assert link.peer == "loopback"


def test_two_devices_measure_the_same_exchanges():
    host, _, port = address().partition(":")
    found = {}

    def device(rank, repeats):
        try:
            found[rank] = measure_link((host, int(port)), rank, 20, repeats)
        except ValueError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=device, args=(rank, 3 + rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all("the two devices do not run the same" in found[rank] for rank in (0, 1))


@pytest.mark.parametrize(
    "times", [None, [], [[1.0]], [[1.0], "x"], [[1.0], [None]], [[1.0], []], [[1.0], [float("inf")]]]
)
def test_times_that_are_no_numbers_are_those_of_a_device_that_has_ended(times):
    told = SimpleNamespace(tell=lambda message: None, hear=lambda: {"times": times})
    peer = SimpleNamespace(meeting=told, exchange=lambda values, key: None)
    with pytest.raises(PeerLost, match="the other device has ended without its times"):
        _measured(peer, 1, (4, 8), "there")
