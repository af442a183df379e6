"""A worker: its cells, its log, its failures."""

import pytest

from tests.sweeps.toy_experiment import run

pytestmark = pytest.mark.slow


def test_failures_end_their_cell_alone(sweep_of, tmp_path):
    sweep = sweep_of("target: {values: [1, 13, 2]}, step: {value: 1}")
    update, _ = run(sweep, tmp_path, workers=1)
    assert [state.state for state in update.states] == ["done", "failed", "done"]
    assert update.states[1].reason == "13 brings bad luck"
    log = next((tmp_path / "sweeps").glob("*/*.log")).read_text()
    assert "neq: cell 2: {'step': 1, 'target': 13}" in log
    assert "neq: counted to 12" in log
    assert "Traceback" not in log
