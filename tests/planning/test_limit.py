from pathlib import Path

import pytest
import torch

from neq.config import resolve
from neq.data import Data
from neq.experiment.run import run_training
from neq.planning.limit import MemoryExceeded, MemoryLimit
from neq.runs import read_metrics

RUN = {"dataset": "digits", "net_name": "mcunet-in0", "image_size": 16, "base_batch_size": 64}
SHORT = {"n_epochs": 1, "warmup_epochs": 0, "neuron_selection": "head", "initialization": "head"}


def limited(limit: int, folder: Path) -> MemoryLimit:
    tracker = MemoryLimit(limit, torch.device("cpu"))
    config = resolve({}, {**RUN, **SHORT, "ratio": 0.5, "run_dir": str(folder), "device": "cpu"}).config
    run_training(config, trackers=(tracker,), opened=tracker.open_data)
    return tracker


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the process has held at most: 100 bytes more each time it is read, if nothing was freed before."""
    read = [1000]

    def peak(device: torch.device) -> tuple[int, str]:
        read.append(read[-1] + 100)
        return read[-1], "of this test"

    monkeypatch.setattr("neq.planning.limit.peak_memory", peak)
    return read


@pytest.mark.slow
def test_what_training_adds_to_the_process_counts(tmp_path: Path, memory: list[int]) -> None:
    tracker = limited(10**12, tmp_path / "run")
    steps = len(memory) - 3  # at the start there is one, and after the epoch another one
    assert steps > 10
    assert tracker.used == memory[-1] - memory[1] == 100 * (steps + 1)
    assert len(read_metrics(tmp_path / "run")) == 1


@pytest.mark.slow
def test_a_run_above_its_limit_ends_after_the_step(tmp_path: Path, memory: list[int]) -> None:
    message = r"training took 0\.0 MiB of the 0\.0 MiB that it may take"
    with pytest.raises(MemoryExceeded, match=message) as error:
        limited(250, tmp_path / "run")
    assert (error.value.used, error.value.limit) == (300, 250)
    assert read_metrics(tmp_path / "run") == []


def test_images_in_memory_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = []
    monkeypatch.setattr(Data, "fill_cache", lambda self: filled.append(self))
    config = resolve({}, RUN).config
    tracker = MemoryLimit(1, torch.device("cpu"))
    with tracker.open_data(config.data_provider, 0, torch.device("cpu"), 0, 1) as data:
        assert filled == [data]
        assert tracker.used == 0
