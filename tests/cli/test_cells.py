import json
import subprocess
import sys
from pathlib import Path

import pytest

from neq.cli import main
from neq.runs import identity, run_folder
from neq.sweeps import cells, read_sweep

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "policies/test_policy.yaml"


def test_the_cells_of_a_grid_are_listed_with_their_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = cells(read_sweep(POLICY))[1].config
    folder = Path("mine") / run_folder(config)
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text(json.dumps(identity(config)))
    (folder / "summary.json").write_text("{}")
    assert main(["cells", str(POLICY)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 done, 0 unfinished, 6 waiting"
    assert main(["cells", str(POLICY), "--runs-dir", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["test-policy: grid, 6 cells", "metric: valid.val/best, maximize"]
    assert "n_epochs 1" in lines[2]
    assert lines[3] == "settings that the sweep does not give: those of configuration transfer"
    assert lines[4].split() == ["cell", "manual_seed", "neuron_selection", "state", "run"]
    rows = [line.split() for line in lines[6:12]]
    assert [row[:4] for row in rows[:3]] == [
        ["1", "0", "velocity", "waiting"],
        ["2", "0", "random", "done"],
        ["3", "42", "velocity", "waiting"],
    ]
    assert rows[1][4] == str(folder)
    assert len({row[4] for row in rows}) == 6
    assert lines[-1] == "1 done, 0 unfinished, 5 waiting"


def test_a_base_of_ones_own(tmp_path, capsys):
    """--config-file is the configuration of cells whose file names none, given with or without .yaml."""
    path = tmp_path / "own.yaml"
    path.write_text("run_config: {n_epochs: 3, base_lr: .5}\n")
    for given in (str(path), str(path.with_suffix(""))):
        assert main(["cells", str(POLICY), "--config-file", given, "--runs-dir", str(tmp_path)]) == 0
        assert f"those of configuration {given}\n" in capsys.readouterr().out
    assert main(["cells", str(ROOT / "policies/c10/mbv2_su.yaml"), "--config-file", str(path)]) == 0
    assert "those of configuration published\n" in capsys.readouterr().out


def test_a_search_is_shown_by_what_it_draws_from(capsys):
    assert main(["cells", str(ROOT / "policies/digits/rates.yaml")]) == 0
    out = capsys.readouterr().out
    assert "random, each run drawn when it starts, at most 12 runs (run_cap)" in out
    assert "log_uniform_values: min 0.003, max 0.3" in out
    assert "0 (0.25), 0.9 (0.75)" in out


def test_values_in_brackets_are_shown_as_they_are(tmp_path, capsys):
    path = tmp_path / "steps.yaml"
    path.write_text(
        "{program: train_classification.py, method: grid, "
        "parameters: {lr_schedule_name: {value: multi_step}, "
        "lr_step_size: {values: [[30], [60]]}, image_size: {values: [null, 32]}}}"
    )
    assert main(["cells", str(path)]) == 0
    out = capsys.readouterr().out
    assert "[30]" in out
    assert "null" in out


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "does not exist"),
        ("program: x.py\nmethod: grid\nparameters: {}\n", "program 'x.py' is not allowed"),
        (
            "program: train_classification.py\nmethod: grid\nparameters: {n_epochs: {values: [1, 0]}}\n",
            "cell 2 of 2 (n_epochs: 0): n_epochs 0 is not allowed",
        ),
    ],
)
def test_a_wrong_file_is_one_line_and_code_2(tmp_path, capsys, text, line):
    path = tmp_path / "sweep.yaml"
    if text is not None:
        path.write_text(text)
    assert main(["cells", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert str(path) in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["a.yaml", "b.yaml"], ["--all"]])
def test_one_file_is_taken(capsys, arguments):
    assert main(["cells", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("neq: neq cells: ")
    assert len(err.splitlines()) == 1


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["cells", "--help"])
    assert ended.value.code == 0
    assert "--runs-dir" in capsys.readouterr().out


def test_torch_is_not_imported_to_list_cells():
    code = f"import sys, neq.cli; neq.cli.main(['cells', {str(POLICY)!r}]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
