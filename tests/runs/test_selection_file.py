import json
import shutil

import numpy as np
import pytest
import torch

from neq.runs.selection_file import read_selection, read_selection_history, save_selection
from neq.training import EpochReport
from neq.utils.errors import UserError


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


def test_selections_are_read_as_the_run_wrote_them(tiny_run):
    known = read_selection_history(tiny_run)
    layers = json.loads((tiny_run / "selection" / "table.json").read_text())["layers"]
    assert known.layers == tuple(layer["name"] for layer in layers)
    assert known.chosen.shape == known.velocity.shape == (1, sum(known.sizes))
    costs = np.repeat([layer["parameters"] for layer in layers], known.sizes)
    summary = json.loads((tiny_run / "summary.json").read_text())
    assert (known.chosen[0] * costs).sum() == summary["selected_parameters_max"]


def test_selections_that_cannot_be_read(tmp_path, tiny_run):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run / "selection", folder / "selection")
    epoch = folder / "selection" / "00000.npz"
    epoch.rename(folder / "selection" / "00001.npz")
    with pytest.raises(UserError, match="lacks an epoch"):
        read_selection_history(folder)
    epoch.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        read_selection_history(folder)
    epoch.unlink()
    (folder / "selection" / "00001.npz").unlink()
    with pytest.raises(UserError, match="holds no epoch yet"):
        read_selection_history(folder)
