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


@pytest.mark.slow
def test_what_training_adds_to_the_process_counts(tmp_path: Path) -> None:
    tracker = limited(10**12, tmp_path / "run")
    assert 0 < tracker.used < 2**30
    assert len(read_metrics(tmp_path / "run")) == 1


@pytest.mark.slow
def test_a_run_above_its_limit_ends_after_the_step(tmp_path: Path) -> None:
    with pytest.raises(
        MemoryExceeded, match=r"training took .* MiB of the 0\.0 MiB that it may take"
    ) as error:
        limited(1, tmp_path / "run")
    assert error.value.used > error.value.limit == 1
    assert read_metrics(tmp_path / "run") == []


def test_images_in_memory_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = []
    monkeypatch.setattr(Data, "fill_cache", lambda self: filled.append(self))
    config = resolve({}, RUN).config
    tracker = MemoryLimit(1, torch.device("cpu"))
    with tracker.open_data(config.data_provider, 0, torch.device("cpu"), 0, 1) as data:
        assert filled == [data]
        assert tracker.used == 0
