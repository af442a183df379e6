from dataclasses import replace
from itertools import cycle

import pytest
import torch

from neq.partition import profiling, published
from neq.partition.device_profile import BlockShape, DeviceProfile
from neq.partition.profiling import (
    Part,
    block_widths,
    parts_ms,
    profile_device,
    rising,
    scaled,
)
from neq.utils.errors import UserError
from tests.partition.toys import base, two


class Clock:
    """In place of time: every reading is a little later; the processor works for a share of that."""

    def __init__(self, shares=(1.0,)):
        self.now = self.work = 0.0
        self.shares = cycle(shares)

    def perf_counter(self):
        return self.now

    def thread_time(self):  # twice between two of the former
        self.now += 0.0005
        self.work += 0.001 * next(self.shares)
        return self.work


class Steps:
    """In place of time: samples take what is given, and the processor works for what is given."""

    def __init__(self, samples):
        self.walls = iter([each for sample in samples for each in (0.0, sample[0])])
        self.works = iter([each for sample in samples for each in (0.0, sample[1])])

    def perf_counter(self):
        return next(self.walls)

    def thread_time(self):
        return next(self.works)


def part(monkeypatch, *samples):
    monkeypatch.setattr(profiling, "time", Steps(samples))
    return Part("a part", lambda values: values, torch.ones(1, 1, 2, 2))


def test_a_sample_in_which_the_processor_did_something_else_is_taken_again(monkeypatch):
    of = part(monkeypatch, (1.0, 0.5), (1.0, 0.89), (1.0, 0.95))
    of.sample(allow_busy=False)
    assert (of.walls, of.works, of.spoilt) == ([1.0], [0.95], 2)


def test_samples_that_never_count_are_given_up(monkeypatch):
    of = part(monkeypatch, *[(1.0, 0.5)] * 20)
    of.sample(allow_busy=False)
    assert (of.walls, of.spoilt) == ([], 10)


def test_a_busy_device_is_allowed(monkeypatch):
    of = part(monkeypatch, (1.0, 0.25))
    of.sample(allow_busy=True)
    assert (of.walls, of.works, of.spoilt) == ([1.0], [0.25], 0)


def measured(monkeypatch, *shares, allow_busy=False, models=None):
    monkeypatch.setattr(profiling, "time", Clock(shares))
    return profile_device(models or [base(), two("cnnncna")], "toy", 5, repeats=3, allow_busy=allow_busy)


def test_the_profile_of_an_idle_device(monkeypatch, tmp_path):
    found = measured(monkeypatch, 1.0)
    assert (found.clock, found.name, found.folded) == ("wall", "toy", True)
    assert found.busy == pytest.approx(0)
    path = tmp_path / "toy.json"
    found.write(path)
    assert DeviceProfile.read(path) == found
    for model in (base(), two("cnnncna"), two("acacaca"), two("ccccccc")):
        for branch in range(model.branches):
            for block in model.blocks(branch):
                assert found.block_ms(block) > 0
    assert [each.name for each in found.networks] == ["toy", "toy2"]
    for each, model in zip(found.networks, (base(), two("cnnncna")), strict=True):
        assert each.parts_ms == pytest.approx(parts_ms(found, model, 5))
    assert found.stem_ms(16, 3, 2, 3, 8) > 0
    assert found.head_ms(2, 20, 32, 5) > 0


def test_a_busy_device_is_refused_unless_it_is_allowed(monkeypatch):
    with pytest.raises(UserError, match=r"this device is busy: in 100% of the samples .* give --allow-busy"):
        measured(monkeypatch, 0.5)
    found = measured(monkeypatch, 0.5, allow_busy=True)
    assert found.clock == "cpu"
    assert found.busy == pytest.approx(0.5)


def test_the_sum_of_parts_counts_every_block_of_both_branches(monkeypatch):
    found = measured(monkeypatch, 1.0)
    one = replace(
        found,
        blocks=tuple(
            replace(times, widths=tuple((width, 1.0) for width, _ in times.widths), plain_ms=1.0)
            for times in found.blocks
        ),
        stems=tuple(replace(stem, ms=10.0) for stem in found.stems),
        heads=tuple(replace(head, ms=100.0) for head in found.heads),
    )
    assert parts_ms(one, base(), 5) == pytest.approx(118)
    assert parts_ms(one, two("acacaca"), 5) == pytest.approx(126)


def test_widths_of_the_published_networks():
    models = [published(name) for name in ("mobilenet_v2", "syncnas_mobilenet_v2_100")]
    widths = block_widths(models)
    for shape, values in widths.items():
        expanding = [width for width in values if width != shape.in_channels]
        assert values == sorted(set(values))
        assert 2 <= len(expanding) <= profiling.WIDTHS
        assert all(width % 4 == 0 for width in expanding)
        assert shape.in_channels in values
    for block in models[0].blocks(0):  # the plain network's own widths are measured, not interpolated
        assert block.expanded in widths[BlockShape.of(block)]
        halved = replace(block, out_channels=block.out_channels // 2)
        assert BlockShape.of(block) in widths
        assert block.out_channels != models[0].stages[0][0][0].out_channels or BlockShape.of(halved) in widths


def test_a_narrow_block_has_two_widths():
    assert profiling._spread(4, [4]) == [4, 8, 12]
    assert profiling._spread(8, [8]) == [4, 8, 12]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([1.0, 2.0], [1.0, 2.0]),
        ([2.0, 1.0, 3.0], [1.5, 1.5, 3.0]),
        ([1.0, 4.0, 3.0, 2.0], [1.0, 3.0, 3.0, 3.0]),
        ([3.0, 2.0, 1.0], [2.0, 2.0, 2.0]),
    ],
)
def test_times_that_fall_with_width_are_pooled(values, expected):
    assert rising(values) == pytest.approx(expected)


def test_an_emulated_device_takes_longer(monkeypatch):
    found = measured(monkeypatch, 1.0, models=[base()])
    slow = scaled(found, 0.5)
    block = next(iter(base().blocks(0)))
    assert slow.block_ms(block) == pytest.approx(2 * found.block_ms(block))
    assert slow.networks[0].whole_ms == pytest.approx(2 * found.networks[0].whole_ms)
    assert slow.stem_ms(16, 3, 2, 3, 8) == pytest.approx(2 * found.stem_ms(16, 3, 2, 3, 8))
    assert slow.environment["cpu_share"] == 0.5
    slow.check()
