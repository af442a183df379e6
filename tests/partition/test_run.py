"""Two devices against one process."""

import json

import pytest
import torch

from neq.partition.deploy import load_part
from neq.partition.exchange import Peer, _join
from neq.partition.folding import folded
from neq.partition.meeting import Meeting, PeerLost
from neq.partition.run import PartRunner, Times, _of_both, measured_latency, parts
from tests.forked import ROOT, Forked
from tests.partition.devices import network, write_toy
from tests.partition.toys import IMAGE
from tests.training.distributed.together import ended, free_port

SYNCS = ("annncna", "ccccccc", "aaaaaac", "nnnnnna")
WORKER = """
import sys, torch
from pathlib import Path
from neq.partition.deploy import load_part
from neq.partition.exchange import open_peer
from neq.partition.run import Leader, follow, hello
from tests.partition.test_run import SYNCS, images

folder, rank, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
agreed = {key: "the same" for key in ("manifest", "model", "neq", "torch")}
outputs, found = {}, {}
with open_peer(("127.0.0.1", port), rank, agreed, 60) as peer:
    for sync in SYNCS:
        manifest, part = load_part(folder / sync, rank)
        if rank == 1:
            found[sync] = follow(part, peer, manifest.images.size)
            continue
        leader = Leader(part, peer, manifest.images.size)
        leader.warm_up(1)
        outputs[sync] = [leader.run(image) for image in images()]
        found[sync] = leader.finish()
kept = {"outputs": outputs, "latency": {sync: each.to_json() for sync, each in found.items()}}
torch.save(kept, folder / f"{rank}.pt")
"""


def images():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, 3, IMAGE, IMAGE, generator=generator) for _ in range(3)]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes return, by rank."""
    folder = tmp_path_factory.mktemp("split")
    for sync in SYNCS:
        write_toy(folder / sync, sync)
    port = str(free_port())
    started = [Forked(WORKER, str(folder), rank, port, cwd=ROOT) for rank in "01"]
    for code, _, error in ended(started, 120):
        assert code == 0, error
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("sync", SYNCS)
def test_two_devices_return_what_one_process_does_to_the_last_bit(together, sync):
    whole = folded(network(sync)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = [whole(image.contiguous(memory_format=torch.channels_last)) for image in images()]
    found = together[0]["outputs"][sync]
    assert [torch.equal(*pair) for pair in zip(found, expected, strict=True)] == [True] * 3
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("sync", SYNCS)
def test_both_devices_know_the_latency_of_both(together, sync):
    first, second = (each["latency"][sync] for each in together)
    assert first["devices"] == second["devices"]
    assert first["images"] == second["images"] == 3
    syncs = sum(kind != "n" for kind in sync)
    for device in first["devices"]:
        assert [len(device[name]) for name in ("segments", "exchange", "waiting")] == [syncs] * 3
        assert device["total"] >= max(device["segments"])
        assert min(device["waiting"]) >= 0
    assert first["devices"][0]["exchange"] == first["devices"][1]["exchange"]
    assert first["devices"][0]["head"] > 0 == first["devices"][1]["head"]


class Alone(Peer):
    """A device whose peer sends what it gets."""

    def __init__(self):
        super().__init__(0, None, 5.0)

    def _wait(self, *works):
        pass


def test_maps_are_sent_without_a_copy_into_the_same_memory(tmp_path, monkeypatch):
    _, part = load_part(write_toy(tmp_path / "split"), 0)
    sent, received = [], []
    monkeypatch.setattr("torch.distributed.isend", lambda values, rank: sent.append(values))
    monkeypatch.setattr("torch.distributed.irecv", lambda values, rank: received.append(values))
    returned = []
    segment = part.segment
    monkeypatch.setattr(part, "segment", lambda *given: returned.append(segment(*given)) or returned[-1])
    device = PartRunner(part, Alone())
    for image in images()[:2]:
        device.run(image.contiguous(memory_format=torch.channels_last), Times())
    assert [each.data_ptr() for each in sent] == [each.data_ptr() for each in returned]
    assert all(each.is_contiguous() for each in (*sent, *received))
    places = [each.data_ptr() for each in received]
    assert len(places) == 6
    assert places[:3] == places[3:]
    assert len(set(places)) == 3


def test_another_layout_is_sent_as_the_same_map(monkeypatch):
    sent = []
    monkeypatch.setattr("torch.distributed.isend", lambda values, rank: sent.append(values.clone()))
    monkeypatch.setattr("torch.distributed.irecv", lambda values, rank: values.copy_(sent[-1]))
    own = torch.randn(2, 3, 4, 5)
    assert torch.equal(Alone().exchange(own), own)


def test_waiting_is_what_a_device_takes_longer_at_a_sync_than_the_other():
    def times(segments, syncs):
        of_both = {"computed": 0.04, "worked": 0.03}
        return Times(input=0.001, stem=0.002, segments=segments, syncs=syncs, total=0.1, **of_both)

    first = [times([0.01, 0.02], [0.005, 0.001]), times([0.01, 0.02], [0.007, 0.001])]
    second = [times([0.03, 0.02], [0.001, 0.004]), times([0.03, 0.02], [0.003, 0.008])]
    found = measured_latency([first, second])
    assert found.images == 2
    assert found.devices[0].exchange == pytest.approx((2.0, 1.0))
    assert found.devices[0].waiting == pytest.approx((4.0, 0.0))
    assert found.devices[1].waiting == pytest.approx((0.0, 5.0))
    assert dict(parts(found))["segment 0"] == pytest.approx((10.0, 30.0))
    assert found.devices[0].busy == pytest.approx(0.25)
    assert not first[0].is_calm
    assert Times(computed=0.04, worked=0.039).is_calm
    assert measured_latency([[], []]) is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("Timed out waiting 5000ms for send operation to complete", "has not answered for 5 s"),
        ("Connection closed by peer [127.0.0.1]:17312. GLHF!", "has ended, or its connection has"),
    ],
)
def test_what_gloo_raises_is_one_line(error, line):
    class Failing:
        def wait(self, limit):
            raise RuntimeError(f"[pair.cc:561] {error}\nmore")

    with pytest.raises(PeerLost, match=line):
        Peer(0, None, 5.0)._wait(Failing())


class Told(Meeting):
    """A meeting at which the other device says one thing."""

    own_host = peer_host = "127.0.0.1"

    def __init__(self, message):
        self._read, self._timeout = json.dumps(message).encode() + b"\n", 5.0

    def tell(self, message):
        pass


@pytest.mark.parametrize("port", [float("inf"), None, "80", True, 0, 65536])
def test_a_port_that_is_none_ends_the_devices_meeting(port):
    with pytest.raises(PeerLost, match="the two devices could not be connected") as caught:
        _join(Told({"port": port}), 1, 5.0)
    assert "\n" not in str(caught.value)


FULL = {"segments": [0.1], "syncs": [0.1], "computed": 0.1}


@pytest.mark.parametrize(
    "times",
    [
        [{**FULL, "syncs": None}],
        [{**FULL, "syncs": [None]}],
        [{**FULL, "syncs": []}],
        [{**FULL, "syncs": [float("inf")]}],
        [{**FULL, "total": "1"}],
        [{**FULL, "total": 10**400}],
        [{**FULL, "total": [1]}],
        [{**FULL, "computed": 0}],
        [{"other": 1}],
        [3],
        None,
    ],
)
def test_times_that_are_none_are_those_of_a_device_that_has_ended(times):
    peer = Peer(0, Told({"times": times}), 5.0)
    with pytest.raises(PeerLost, match="the other device has ended without its times"):
        measured_latency(_of_both(peer, [Times(**FULL)]))


def test_times_of_both():
    peer = Peer(1, Told({"times": [FULL]}), 5.0)
    assert measured_latency(_of_both(peer, [Times(**FULL)] * 2)).images == 1
