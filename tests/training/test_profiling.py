from pathlib import Path

import pytest
import torch

from neq.training.profiling import SavedBytes, StepClock, forget_peak_memory, peak_memory


def test_saved_bytes_count_storages_once_and_weights_not_at_all():
    x = torch.randn(10, 20)
    weight = torch.randn(20, 30, requires_grad=True)
    saved = SavedBytes([weight])
    with saved.counting():
        y = x @ weight  # keeps x (and the weight)
        z = y.exp()  # keeps its result
        w = z * z.view(30, 10).T  # keeps z twice
    assert saved.total == x.nbytes + z.nbytes
    w.sum().backward()
    assert weight.grad is not None


def test_the_clock_times_every_step_and_nothing_between(monkeypatch):
    now = 100.0
    monkeypatch.setattr("neq.training.profiling.time.perf_counter", lambda: now)
    seconds: list[float] = []
    clock = StepClock(torch.device("cpu"), seconds)
    for length in (0.25, 2.0, 0.5):
        now += 7
        with clock.step():
            now += length
    assert seconds == [0.25, 2.0, 0.5]


def test_peak_memory_of_the_process_grows():
    before, kind = peak_memory(torch.device("cpu"))
    block = torch.ones(2**26)  # 256 MiB
    after, _ = peak_memory(torch.device("cpu"))
    assert kind == "maximum of the process"
    assert after >= before
    assert after > block.nbytes


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="one maximum for ever here")
def test_a_run_after_another_in_one_process_has_a_peak_of_its_own():
    cpu = torch.device("cpu")
    block = torch.ones(2**27)  # 512 MiB
    of_the_first, _ = peak_memory(cpu)
    size = block.nbytes
    del block
    forget_peak_memory(cpu)
    assert peak_memory(cpu)[0] < of_the_first - 0.9 * size
