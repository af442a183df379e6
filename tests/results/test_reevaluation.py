"""Best networks measured again by the task of their objective."""

import json
from pathlib import Path

import openpyxl
import pytest

from neq.cli import main

SWEEP = """program: train_classification.py
method: grid
parameters:
  objective: {values: [tent, statistics]}
  net_name: {value: mcunet-in0}
  image_size: {value: 16}
  base_batch_size: {value: 128}
"""


@pytest.mark.slow
def test_a_sweep_of_objectives_is_measured_again_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("objectives.yaml").write_text(SWEEP)
    assert main(["sweep", "objectives.yaml", "--workers", "1"]) == 0
    assert main(["results", "book", "-w", "objectives.yaml", "--evaluate"]) == 0
    assert "2 best networks measured again: 2 as recorded" in capsys.readouterr().out
    header, *rows = openpyxl.load_workbook("output.xlsx")["Runs"].iter_rows(values_only=True)
    found = [dict(zip(header, row, strict=True)) for row in rows]
    assert {row["objective"] for row in found} == {"tent", "statistics"}
    recorded = [json.loads(path.read_text())["test_top1"] for path in Path("runs").rglob("summary.json")]
    assert sorted(row["test/top1 measured again (%)"] for row in found) == sorted(recorded)
