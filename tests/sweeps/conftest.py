import pytest

from neq.experiment import experiment as experiments
from neq.experiment.experiment import register_experiment
from neq.sweeps import read_sweep
from tests.sweeps.toy_experiment import PLACE, PROGRAM


@pytest.fixture
def sweep_of(tmp_path, monkeypatch):
    """Reads a sweep over targets, whose program is the toy's."""
    monkeypatch.setattr(experiments, "_PROGRAMS", dict(experiments._PROGRAMS))
    register_experiment(PROGRAM, PLACE)

    def read(parameters, more=""):
        file = tmp_path / "sweep.yaml"
        file.write_text(f"program: {PROGRAM}\nmethod: grid\nparameters: {{{parameters}}}\n{more}\n")
        return read_sweep(file)

    return read
