"""Channel sizing: within the latency, both devices busy, the published widths where the table is theirs."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from neq.partition import BASES, published
from neq.partition.costs import block_macs, macs
from neq.partition.device_profile import LinkProfile
from neq.partition.latency import latency
from neq.partition.sizing import Sizing
from neq.partition.strategies import strategies, strategy_name, strategy_of
from tests.partition.toys import Machine, Wire, base

LINK = LinkProfile(0.2, 1.2e6)


def widths(model, branch):
    return [block.expanded for block in model.blocks(branch)]


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(
    "devices",
    [(Machine(10e6, 0.03),) * 2, (Machine(10e6, 0.03), Machine(7e6, 0.06))],
    ids=["equal", "unequal"],
)
def test_no_strategy_is_slower_than_the_base(name, devices):
    sizing = Sizing(published(name), devices, LINK)
    sized = {sync: sizing.size(sync) for sync in strategies()[::9]}
    found = {sync: each for sync, each in sized.items() if each is not None}
    assert len(found) > 100
    for sync, each in found.items():
        assert each.model.name == strategy_name(sync)
        assert each.latency == latency(each.model, devices, LINK)
        assert each.latency.total <= sizing.limit
        assert {width % 4 for branch in (0, 1) for width in widths(each.model, branch)} == {0}
        if devices[0] == devices[1]:
            assert widths(each.model, 0) == widths(each.model, 1)


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.3])
def test_devices_are_busy_as_long_as_one_step_does_not_fit(scale):
    devices = Machine(10e6, 0.03), Machine(7e6, 0.06)
    sizing = Sizing(published("mobilenet_v2"), devices, LINK, scale)
    apart = []
    for sync in strategies()[::19]:
        sized = sizing.size(sync)
        if sized is None:
            assert scale < 1
            continue
        for segment, times in zip(sized.model.segments, sized.latency.segments, strict=True):
            blocks = [list(sized.model.blocks(branch, segment)) for branch in (0, 1)]
            steps = [
                min(
                    device.block_ms(replace(block, expanded=block.expanded + 4)) - device.block_ms(block)
                    for block in of_device
                )
                for device, of_device in zip(devices, blocks, strict=True)
            ]
            slower = max(times)
            assert slower - min(times) <= max(0.05 * slower, *steps)
            apart.append((slower - min(times)) / slower)
    assert np.median(apart) < 0.05


@dataclass(frozen=True)
class Table:
    """Times of blocks that are affine in their widths, by shape."""

    lines: dict

    def block_ms(self, block):
        fixed, slope = self.lines[replace(block, expanded=0)]
        return fixed + slope * block.expanded

    def stem_ms(self, *sizes):
        return 0.0

    def head_ms(self, *sizes):
        return 0.0


@pytest.mark.parametrize("name", BASES)
def test_a_table_fitted_to_a_published_network_returns_its_widths(name):
    plain, two = published(name), published(f"syncnas_{name}_100")
    halved = {replace(block, expanded=0) for block in two.blocks(0)} - {
        replace(block, expanded=0) for block in plain.blocks(0)
    }
    alike = {}  # shape -> widths of the base, of branch 0 and of branch 1
    for old, one, other in zip(plain.blocks(0), two.blocks(0), two.blocks(1), strict=True):
        key = replace(one, expanded=0)
        alike.setdefault(key, []).append((old.expanded, one.expanded, other.expanded))
    macs_a_width = {key: block_macs(replace(key, expanded=10**6 + 1)) / (10**6 + 1) for key in alike}
    lines = [{}, {}, {}]  # of the base's device, and of each branch's
    for key, rows in alike.items():
        olds, *news = zip(*rows, strict=True)
        lines[0][key] = (0.0, macs_a_width[key])
        for line, new in zip(lines[1:], news, strict=True):
            targets = [old * macs_a_width[key] for old in olds]
            slope, fixed = np.polyfit(new, targets, 1) if len(set(new)) > 1 and len(set(olds)) > 1 else (
                np.mean(targets) / np.mean(new), 0.0)  # fmt: skip
            line[key] = (fixed, slope)
    for key in halved:  # the base's own block is the one with all of its output
        whole = replace(key, out_channels=2 * key.out_channels)
        lines[0][whole] = lines[0][key]
    sizing = Sizing(plain, [Table(lines[1]), Table(lines[2])], Wire(), base_device=Table(lines[0]))
    sized = sizing.size(two.sync)
    assert sized is not None
    assert sized.share == pytest.approx(1)
    near = [
        abs(found - expected) <= 4
        for branch in (0, 1)
        for found, expected in zip(widths(sized.model, branch), widths(two, branch), strict=True)
    ]
    assert sum(near) >= 0.9 * len(near)  # all of them


def test_what_leaves_no_time_for_blocks_is_invalid():
    devices = (Machine(10e6, 0.03),) * 2
    slow = LinkProfile(5.0, 1e6)
    sizing = Sizing(published("mobilenet_v2"), devices, slow)
    assert sizing.size(strategy_of("sync7_0123456_aaaaaaa")) is None
    assert sizing.size(strategy_of("sync1_6_a")) is not None
    # Each block takes 30 ms at any width: on device 1 there is no room.
    assert Sizing(base(), (Machine(1e6), Machine(1e6, 10)), Wire()).size(strategy_of("sync1_6_a")) is None


def test_a_block_as_wide_as_its_input_is_taken_where_it_is_the_widest():
    # Without its expansion the block is faster than narrower ones.
    machine = Machine(1e5, 0.01)
    sized = Sizing(base(), (machine, machine), Wire()).size(strategy_of("sync1_6_a"))
    assert widths(sized.model, 0)[0] == base().stages[0][0][0].expanded


def test_equal_cores_make_both_branches_equal():
    sized = Sizing(published("mobilenet_v2"), (Machine(1e7),) * 2, Wire()).size(strategy_of("sync3_046_aaa"))
    assert sized.share == pytest.approx(1)
    assert widths(sized.model, 0) == widths(sized.model, 1)
    assert macs(sized.model) == pytest.approx(569e6, rel=0.01)  # both branches are the base
