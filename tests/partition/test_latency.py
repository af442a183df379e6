"""The latency model is the sum of what the devices take, the slower one in each segment."""

import pytest

from neq.partition import published
from neq.partition.costs import branch_macs, head_macs, sent_bytes, stem_macs
from neq.partition.device_profile import LinkProfile
from neq.partition.latency import latency
from tests.partition.toys import Machine, Wire, base, two


def test_a_plain_network_runs_on_one_device():
    model, machine = published("mobilenet_v2"), Machine(10e6)
    found = latency(model, [machine])
    assert found.stem == pytest.approx(stem_macs(model) / 10e6)
    assert found.head == pytest.approx(head_macs(model) / 10e6)
    assert found.segments == (pytest.approx((branch_macs(model, 0) / 10e6,)),)
    assert found.syncs == ()
    assert found.total == pytest.approx(300.774 / 10, abs=1e-3)


def test_two_devices_wait_for_the_slower_one_in_each_segment():
    model = published("syncnas_mobilenet_v2_100")
    devices, link = (Machine(10e6), Machine(7e6)), LinkProfile(0.2, 1e6)
    found = latency(model, devices, link)
    expected = stem_macs(model) / 7e6 + head_macs(model) / 10e6
    for segment in model.segments:
        expected += max(branch_macs(model, 0, segment) / 10e6, branch_macs(model, 1, segment) / 7e6)
        expected += 0.2 + sent_bytes(model, segment, 0) / 1e6
    assert found.total == pytest.approx(expected)
    assert len(found.syncs) == len(found.segments) == 3


def test_a_head_has_the_run_s_classes():
    few, many = (latency(base(), [Machine(1e3)], classes=classes).head for classes in (10, 110))
    assert many - few == pytest.approx(100 * 32 / 1e3)


def test_without_a_link_an_exchange_is_free():
    devices = Machine(1e3), Machine(1e3)
    assert latency(two(), devices).total == latency(two(), devices, Wire()).total
