"""Policies beside the published ones, one of them a user's, in a sweep: its workers, its runs, its book."""

import json
import subprocess
import sys

import pytest

from tests.cli.sweeping import ENV, TIMEOUT, write_sweep

SCRIPT = """
import sys
from neq import Policy
from neq.cli import main
from neq.config import register

register(Policy("smallest", __name__))


def score(state):
    return -state.table.parameters.double()


if __name__ == "__main__":
    sys.exit(main(["sweep", "sweep.yaml", "--workers", "1"]) or main(["results", "book", "sweep.yaml"]))
"""


@pytest.mark.slow
def test_a_users_policy_and_taylor_run_in_workers_and_are_in_the_book(tmp_path):
    write_sweep(tmp_path, "neuron_selection: {values: [smallest, taylor]}, ratio: {value: 0.2}")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summaries = [json.loads(file.read_text()) for file in tmp_path.glob("runs/**/summary.json")]
    assert sorted(summary["neuron_selection"] for summary in summaries) == ["smallest", "taylor"]
    assert all(0 < summary["budget_used_max"] <= summary["budget"] for summary in summaries)
    assert (tmp_path / "output.xlsx").exists()
