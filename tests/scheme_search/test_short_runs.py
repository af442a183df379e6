"""Short runs as cells of a sweep that any search finds again."""

from unittest.mock import patch

import pytest

from neq.config import resolve
from neq.experiment.training_experiment import TrainingExperiment
from neq.runs import RunLocation
from neq.runs.identity import plain_identity
from neq.scheme_search import Measured, ShortRuns
from neq.scheme_search.costs import HEAD
from neq.selection import StaticScheme
from neq.sweeps import read_cells
from neq.sweeps.grid_runs import DIVERGED, GridRuns
from neq.sweeps.history import CellState
from neq.sweeps.run_sweep import SweepUpdate
from neq.training import TrainingDiverged, train
from neq.utils.errors import UserError
from tests.training.runs import run_of

SCHEMES = [HEAD, StaticScheme((3,), (0.5,)), StaticScheme((2, 3), (1.0, 0.25), 4)]


def cells_of(folder, config_file="scheme_search", **settings):
    """The cells of a sweep that is written and of which nothing is trained."""
    given = {"net_name": "mcunet-in0", "dataset": "digits", **settings}
    runs = ShortRuns(config_file, given, [4, 5], folder / "runs", folder / "my scheme")
    with patch.object(GridRuns, "_train", lambda self, sweep, experiment, file: {1, 2, 3, 4, 5, 6}):
        assert runs("contributions", SCHEMES) == {}
    return read_cells(folder / "my scheme_contributions.yaml")[1]


def test_a_cell_for_every_scheme_and_seed(tmp_path):
    cells = cells_of(tmp_path, image_size=16, no_wd_keys=["norm"])
    assert len(cells) == 6
    listed = [StaticScheme.of_config(cell.config.backward_config) for cell in cells]
    assert listed == [scheme for scheme in SCHEMES for _ in range(2)]
    for cell, seed in zip(cells, [4, 5] * 3, strict=True):
        neq = cell.config.NEq_config
        assert (neq.neuron_selection, neq.initialization, neq.norm_mode) == ("SU", "SU", "frozen")
        assert (neq.ratio, neq.budget, neq.scheme) == (1.0, None, None)
        assert (cell.config.manual_seed, cell.config.data_provider.image_size) == (seed, 16)
        assert cell.config.run_config.no_wd_keys == ("norm",)


def test_a_run_is_the_same_as_without_a_search(tmp_path):
    cell = cells_of(tmp_path, n_epochs=2)[2]
    recipe = {"run_config": {"momentum": 0, "base_lr": 0.0125, "warmup_epochs": 0}}
    lists = {"manual_weight_idx": [3], "weight_update_ratio": [0.5]}
    alone = {"neuron_selection": "SU", "initialization": "SU", "ratio": 1, "norm_mode": "frozen", **lists}
    config = resolve(recipe, {"net_name": "mcunet-in0", "n_epochs": 2, "manual_seed": 4, **alone}).config
    assert plain_identity(cell.config) == plain_identity(config)


def test_the_budget_of_a_file_is_none_of_its_runs(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("NEq_config: {norm_mode: frozen, budget: 1MiB, scheme: mbv2_scheme_1}\n")
    for cell in cells_of(tmp_path, str(file)):
        neq = cell.config.NEq_config
        assert (neq.ratio, neq.budget, neq.budget_unit, neq.scheme) == (1.0, None, "parameters", None)


def test_a_run_that_diverges_is_known_by_its_line(tmp_path):
    with (
        run_of(tmp_path, base_lr=1e30, n_epochs=1) as (training, _),
        pytest.raises(TrainingDiverged) as error,
    ):
        train(training)
    assert DIVERGED in str(error.value)


@pytest.mark.parametrize(
    ("state", "reason", "refused"),
    [
        ("failed", "the loss is nan; try a lower base_lr", None),
        ("failed", "no space left on device", r"4 of the 6 runs .* \(no space left on device\)"),
        ("waiting", "", "every worker has stopped"),
        ("done", "", "cell 3 .* is gone"),
    ],
)
def test_only_what_diverged_is_left_out(tmp_path, monkeypatch, state, reason, refused):
    """Of three schemes the head alone has its two runs."""

    def find(experiment, config, runs):
        head = config.backward_config.weight_update_ratio == (0.0,)
        return RunLocation(runs / "head", "done" if head else "unfinished")

    def run_sweep(queue, pool, workers):
        ended = [CellState(cell, "done" if cell < 3 else state, reason=reason) for cell in range(1, 7)]
        yield SweepUpdate(ended, (), (), 0, True)

    monkeypatch.setattr(TrainingExperiment, "find", find)
    monkeypatch.setattr("neq.sweeps.grid_runs.run_sweep", run_sweep)
    (tmp_path / "runs/head").mkdir(parents=True)
    (tmp_path / "runs/head/summary.json").write_text('{"val_top1": 50, "val_loss": 1.5, "test_top1": 40}')
    given = {"net_name": "mcunet-in0", "dataset": "digits"}
    runs = ShortRuns("scheme_search", given, [4, 5], tmp_path / "runs", tmp_path / "scheme")
    if refused is None:
        assert runs("contributions", SCHEMES) == {
            HEAD: Measured(50, 1.5, 40, (str(tmp_path / "runs/head"),) * 2)
        }
    else:
        with pytest.raises(UserError, match=refused):
            runs("contributions", SCHEMES)
