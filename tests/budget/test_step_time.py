"""The time of steps of any batch, micro-batch, cuts and selection."""

from dataclasses import replace

import pytest
import torch

from neq.budget import CostModel, StepSpec, step_time
from neq.budget.peak import Work
from neq.budget.step_time import StepTime, calibrate_step_time, work_of_step
from neq.networks.neurons import neuron_table
from tests.toys import SHAPE, toy

CPU = torch.device("cpu")
KNOWN = StepTime(0.5, 2e-3, 3e-4, 0.0)
WORKS = [Work(100, 200, 0, 900), Work(100, 200, 80, 1200), Work(50, 20, 0, 300), Work(10, 5, 0, 800)]


def test_the_fit_finds_coefficients_again():
    steps = list(zip((1, 2, 1, 4), WORKS, strict=True))
    found = StepTime.fit(steps, [KNOWN.seconds(*each) for each in steps])
    assert (found.of_pass, found.of_mac, found.of_byte) == pytest.approx((0.5, 2e-3, 3e-4))
    assert found.error < 1e-9
    assert found.seconds(2, WORKS[1]) > found.seconds(2, WORKS[1]._replace(again=0))


def test_coefficients_are_no_less_than_zero():
    found = StepTime.fit([(1, WORKS[0]), (4, WORKS[0]), (1, WORKS[2])], [3.0, 1.0, 2.0])
    assert min(found.of_pass, found.of_mac, found.of_byte) >= 0


def test_calibration_measures_five_kinds_of_steps(monkeypatch):
    network = toy(dtype=torch.float32)
    table = neuron_table(network, SHAPE)
    spec = StepSpec((8,), SHAPE)
    seen = []

    def measure(model, selections, device):
        seen.append((model.spec, selections[0]))
        return [KNOWN.seconds(*work_of_step(model, chosen)) for chosen in selections]

    monkeypatch.setattr(step_time, "measure", measure)
    found = calibrate_step_time(network, table, spec, CPU)
    assert len(seen) == 5
    assert any(each.parts > 1 for each, _ in seen)
    assert any(each.checkpoint_cuts for each, _ in seen)
    assert found.error < 1e-6
    cut = replace(spec, micro_batch=4, checkpoint_segments=3)
    work = work_of_step(CostModel(network, table, cut), seen[0][1])
    assert work[0] == 2
    assert found.seconds(*work) == pytest.approx(KNOWN.seconds(*work))


@pytest.mark.slow
def test_calibration_stays_within_the_room(monkeypatch):
    network = toy(dtype=torch.float32)
    table = neuron_table(network, SHAPE)
    spec, seen = StepSpec((16,), SHAPE, "train"), []

    def measure(model, selections, device):
        seen.append((model, selections[0]))
        return [KNOWN.seconds(*work_of_step(model, chosen)) for chosen in selections]

    monkeypatch.setattr(step_time, "measure", measure)
    whole, two = (
        [step_time._bytes(*each) for each in step_time._kinds(network, table, spec, images)]
        for images in (16, 2)
    )
    for room in (max(whole), max(whole) - 1, max(two), max(two) - 1, min(two)):
        seen.clear()
        found = calibrate_step_time(network, table, spec, CPU, lambda size, room=room: size <= room)
        assert seen
        assert found.error < 1e-6
        assert all(step_time._bytes(*each) <= room for each in seen)
    seen.clear()
    calibrate_step_time(network, table, spec, CPU, lambda size: False)
    assert len(seen) == 1  # the least there is
    assert not seen[0][1].any()
