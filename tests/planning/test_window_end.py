import signal
from contextlib import contextmanager
from typing import Any, cast

import pytest

from neq.experiment.run import never
from neq.planning.window_end import WindowEnd
from neq.training import EpochReport, Stop

REPORT = cast(EpochReport, None)


def test_a_window_ends_with_the_first_epoch_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("neq.planning.window_end.time.monotonic", lambda: now)
    end = WindowEnd(10, never)
    with end.stopping() as stop:
        end.step(3, 0, 5)
        end.epoch(REPORT)
        assert stop.number == 0
        now = 111.0
        end.step(4, 4, 5)
        assert stop.number == 0
        assert not end.is_over
        end.epoch(REPORT)
    assert stop.number
    assert end.is_over
    assert end.first_epoch == 3


def test_a_signal_goes_before_the_end_of_a_window() -> None:
    asked = Stop()

    @contextmanager
    def stopping() -> Any:
        yield asked

    end = WindowEnd(-1, stopping)
    with end.stopping():
        asked.number = signal.SIGINT
        end.epoch(REPORT)
    assert asked.number == signal.SIGINT
    assert not end.is_over


def test_without_a_length_a_window_has_no_end() -> None:
    end = WindowEnd(float("inf"), never)
    with end.stopping() as stop:
        end.epoch(REPORT)
    assert stop.number == 0
    assert end.first_epoch is None
