import numpy as np
import pytest
import torch

from neq.runs.selection_file import read_selection, save_selection
from neq.training import EpochReport


def report(epoch):
    """84 neurons; velocities from the second epoch on."""
    chosen = torch.rand(84, generator=torch.Generator().manual_seed(epoch)) < 0.3
    velocity = torch.linspace(-1, 1, 84, dtype=torch.float64) if epoch else None
    return EpochReport(epoch, {"epochs": epoch}, chosen, velocity)


def test_selections_come_back_exactly(tmp_path):
    for epoch in (0, 1):
        save_selection(tmp_path, report(epoch))
    for epoch in (0, 1):
        chosen, velocity = read_selection(tmp_path, epoch)
        assert np.array_equal(chosen, report(epoch).chosen.numpy())
    assert np.allclose(velocity, np.linspace(-1, 1, 84))
    assert read_selection(tmp_path, 0)[1] is None


def test_a_selection_is_compact(tmp_path):
    save_selection(tmp_path, report(0))
    assert (tmp_path / "00000.npz").stat().st_size < 800


def test_arrays_of_another_kind_are_refused(tmp_path):
    np.savez(tmp_path / "00000.npz", chosen=np.zeros(2, dtype=np.uint8), neurons=np.array(17))
    with pytest.raises(ValueError, match="other arrays"):
        read_selection(tmp_path, 0)
