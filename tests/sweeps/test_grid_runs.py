"""Sweep files of searches; how their runs are trained is in tests/scheme_search/test_short_runs.py."""

import json

import pytest

from neq.sweeps import read_cells
from neq.sweeps.grid_runs import grid_text, mean_summary


def test_a_grid_has_a_cell_for_every_seed_and_point(tmp_path):
    file = tmp_path / "grid.yaml"
    varied = ["  net_name: {values: [mcunet-in0, mcunet-in1]}"]
    file.write_text(grid_text("Runs", "toy", "transfer", {"dataset": "digits", "ratio": 0.5}, [3, 4], varied))
    sweep, cells = read_cells(file)
    assert sweep.name == "toy"
    found = {(cell.config.net_config.net_name, cell.config.manual_seed) for cell in cells}
    assert found == {(name, seed) for name in ("mcunet-in0", "mcunet-in1") for seed in (3, 4)}
    assert all(cell.config.NEq_config.ratio == 0.5 for cell in cells)


def test_figures_are_means_over_runs(tmp_path):
    for name, value in (("a", 90.0), ("b", 80.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(
            json.dumps({"val_top1": value, "test_top1": value - 10})
        )
    means = mean_summary([tmp_path / "a", tmp_path / "b"], ("test_top1", "val_top1"))
    assert means == pytest.approx((75.0, 85.0))
