import pytest

from neq.experiment.run import StopEarly
from neq.experiment.time_limit import Deadline, Durations
from neq.utils.errors import UserError


def test_epochs_within_a_time():
    durations = Durations(start=30, epoch=6)
    assert durations.epochs(100) == 10  # a tenth of the time is left: (90 - 30) / 6
    assert durations.epochs(90) == 8
    with pytest.raises(UserError, match=r"40 s are not enough: 2 epochs take about 47 s here, 30 s of them"):
        durations.epochs(40)


def test_no_epoch_begins_that_would_end_too_late(monkeypatch):
    now = 0.0
    monkeypatch.setattr("neq.experiment.time_limit.time.monotonic", lambda: now)
    deadline = Deadline(105)
    for epoch in range(2):  # of 10 s each, after a search of 40 s
        now += 40
        for step in range(2):
            deadline.step(epoch, step, 2)
            now += 5
        deadline.epoch(None)
    assert not deadline.is_over
    with pytest.raises(StopEarly):
        deadline.step(2, 0, 2)
    assert deadline.is_over


def test_an_epoch_that_is_resumed_in_its_middle_has_no_duration(monkeypatch):
    now = 10_000.0  # the machine is up for hours
    monkeypatch.setattr("neq.experiment.time_limit.time.monotonic", lambda: now)
    deadline = Deadline(100)
    deadline.step(0, 7, 9)
    deadline.epoch(None)
    deadline.step(1, 0, 9)
    assert not deadline.is_over


def test_a_strict_deadline_also_ends_the_first_epoch(monkeypatch):
    now = 0.0
    monkeypatch.setattr("neq.experiment.time_limit.time.monotonic", lambda: now)
    lenient, strict = Deadline(10), Deadline(10, is_strict=True)
    for step in range(3):
        now += 4
        lenient.step(0, step, 9)
        if now <= 10:
            strict.step(0, step, 9)
    with pytest.raises(StopEarly):
        strict.step(0, 2, 9)
    assert strict.is_over
    assert not lenient.is_over
