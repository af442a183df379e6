import pytest

from neq.results import collect
from tests.results.run_folders import configs, sweep_file, write_run


@pytest.fixture
def results(tmp_path):
    """The runs of a sweep file with these parameters; those whose number is given have no folder."""

    def of(more, without=(), name="sweep"):
        file = sweep_file(tmp_path / f"{name}.yaml", more)
        for at, config in enumerate(configs(file)):
            if at not in without and not (tmp_path / "runs" / name / str(at)).exists():
                write_run(tmp_path / "runs", config, folder=f"{name}/{at}")
        return collect([file], tmp_path / "runs")

    return of
