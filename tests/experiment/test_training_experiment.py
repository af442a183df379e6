import math
import pickle

import pytest

from neq.config import Objective, Policy, objectives, policies, register, register_objective
from neq.experiment.experiment import open_experiment, program_name, programs
from neq.experiment.training_experiment import DEFAULT_METRIC, TrainingExperiment, by_name
from neq.runs.metrics import epoch_keys
from neq.utils.errors import UserError


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"valid": {"val/top1": 3}}, {"valid.val/top1": 3.0}),
        ({"valid": {"val/top1": math.inf, "val/loss": 2.5}}, {"valid.val/loss": 2.5}),
        ({"valid": {"val/top1": None}}, {}),
        ({"valid": {}}, {}),
        ({"valid": 3}, {}),
        ({}, {}),
    ],
)
def test_metrics_without_a_finite_value_are_left_out(row, found):
    assert by_name(row) == found


def test_sweep_files_name_it_by_its_program():
    assert program_name("./train_classification.py") == "train_classification.py" in programs()
    experiment = open_experiment("train_classification.py", ["--momentum", ".5"])
    assert isinstance(experiment, TrainingExperiment)
    assert experiment.metrics[0] == "valid.val/best"
    assert experiment.metrics[0] == DEFAULT_METRIC
    assert sorted(experiment.metrics) == sorted(epoch_keys())
    config, _ = experiment.resolve({"n_epochs": 3})
    assert (config.run_config.momentum, config.run_config.n_epochs) == (0.5, 3)
    assert experiment.identity(config)["n_epochs"] == 3
    with pytest.raises(UserError, match=r"program 'train.py' is not allowed: write program: train_class"):
        program_name("train.py")
    with pytest.raises(UserError, match="program 3 is not allowed"):
        program_name(3)


def test_policies_that_were_registered_travel_to_the_workers(monkeypatch):
    monkeypatch.setattr(policies, "_REGISTRY", dict(policies._REGISTRY))
    monkeypatch.setattr("neq.experiment.training_experiment.POLICIES", policies._REGISTRY)
    register(Policy("largest", "tests.nowhere"))
    pickled = pickle.dumps(TrainingExperiment(["--n_epochs", "3"]))
    del policies._REGISTRY["largest"]
    experiment = pickle.loads(pickled)
    assert "largest" in policies._REGISTRY
    assert experiment.settings["overrides"] == {"n_epochs": 3}


def test_objectives_that_were_registered_travel_to_the_workers(monkeypatch):
    monkeypatch.setattr(objectives, "_REGISTRY", dict(objectives._REGISTRY))
    monkeypatch.setattr("neq.experiment.training_experiment.OBJECTIVES", objectives._REGISTRY)
    register_objective(Objective("largest", "tests.nowhere:Task"))
    pickled = pickle.dumps(TrainingExperiment())
    del objectives._REGISTRY["largest"]
    pickle.loads(pickled)
    assert "largest" in objectives._REGISTRY


def test_what_a_cell_must_not_set():
    experiment = TrainingExperiment(["--n_epochs", "3"])
    experiment.check_parameters(["manual_seed"])
    with pytest.raises(UserError, match="run_dir is not allowed in a sweep"):
        experiment.check_parameters(["run_dir"])
    with pytest.raises(UserError, match="n_epochs stands in command and in parameters"):
        experiment.check_parameters(["run_config.n_epochs"])
