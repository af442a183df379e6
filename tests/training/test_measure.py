import time

import pytest
import torch

from neq.training.measure import SavedBytes, StepClock, peak_memory


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


def test_the_clock_times_every_step():
    seconds: list[float] = []
    clock = StepClock(torch.device("cpu"), seconds)
    for length in (0.01, 0.2, 0.03):
        with clock.step():
            time.sleep(length)
    assert seconds == pytest.approx([0.01, 0.2, 0.03], abs=0.02)


def test_peak_memory_of_the_process_grows():
    before, kind = peak_memory(torch.device("cpu"))
    block = torch.ones(2**26)  # 256 MiB
    after, _ = peak_memory(torch.device("cpu"))
    assert kind == "maximum of the process"
    assert after >= before
    assert after > block.nbytes
