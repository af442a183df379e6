"""A sweep is run to its end, whatever its experiment."""

import pytest

from neq.cli import main
from neq.sweeps import cells, history
from tests.forked import ensure_server
from tests.sweeps.toy_experiment import named, run

pytestmark = pytest.mark.slow


def test_workers_share_the_cells_of_any_experiment(sweep_of, tmp_path):
    sweep = sweep_of("target: {values: [1, 2, 3, 4]}", "command: [python3, '${program}', --fast, '${args}']")
    assert sweep.experiment().settings == {"flags": ["--fast"]}
    assert [cell.config for cell in cells(sweep)] == [
        {"step": 1, "target": target} for target in (1, 2, 3, 4)
    ]
    update, _ = run(sweep, tmp_path, finished=named)
    assert [state.state for state in update.states] == ["done"] * 4
    assert [state.trial.value for state in update.states] == [1, 2, 3, 4]
    folders = [tmp_path / "counts" / f"{target}-1" for target in (1, 2, 3, 4)]
    attributes = [state.trial.user_attrs for state in update.states]
    assert [found[history.FOLDER] for found in attributes] == list(map(str, folders))
    assert [found[history.EPOCHS] for found in attributes] == [1, 2, 3, 4]
    assert all((folder / "seen").exists() for folder in folders)


def test_early_terminate_stops_runs_by_the_experiments_metric(sweep_of, tmp_path):
    more = "metric: {name: total, goal: maximize}\nearly_terminate: {type: hyperband, min_iter: 1, eta: 2}"
    update, _ = run(sweep_of("target: {value: 6}, step: {values: [2, 1]}", more), tmp_path, workers=1)
    states = {state.state for state in update.states}
    assert "done" in states
    assert states <= {"done", "stopped"}


def test_the_commands_take_it_too(sweep_of, tmp_path, monkeypatch, capsys):
    sweep_of("target: {values: [1, 2]}")
    monkeypatch.chdir(tmp_path)
    ensure_server()
    assert main(["sweep", "sweep.yaml"]) == 0
    assert "best total: 2, cell 2 in runs/counts/2-1" in capsys.readouterr().out
    assert main(["cells", "sweep.yaml"]) == 0
    assert "2 done, 0 unfinished, 0 waiting" in capsys.readouterr().out
    assert int((tmp_path / "runs/counts/2-1/log.txt").read_text().split()[-1]) == 2
