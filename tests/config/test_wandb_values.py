import pytest

from neq.cli import main as neq_main
from neq.config import in_wandb_sweep, own_flags, to_yaml, wandb_values
from neq.utils.errors import UserError

# As W&B's agent writes it.
CELL = """\
wandb_version: 1

NEq_config:
  value:
    budget: null
    ratio: 0.2
base_lr:
  value: 5e-2
image_size:
  value: 16
use_validation:
  value: true
"""
ARGS = [
    "--NEq_config={'budget': None, 'ratio': 0.2}", "--base_lr=5e-2", "--image_size=16",
    "--use_validation=True",
]  # fmt: skip


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "cell.yaml")
    path = tmp_path / "cell.yaml"
    path.write_text(CELL)
    return path


def test_outside_a_sweep_there_are_no_values(cell, monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert not in_wandb_sweep()
    assert wandb_values() == {}


def test_values_of_a_cell(cell):
    values = wandb_values()
    assert values["NEq_config"] == {"budget": None, "ratio": 0.2}
    assert {name: value for name, value in values.items() if name != "NEq_config"} == {
        "base_lr": 0.05,
        "image_size": 16,
        "use_validation": True,
    }


def test_flags_that_python_wrote_are_left_out(cell):
    given = ["--n_epochs=3", *ARGS, "--budget=None"]
    assert own_flags(given, wandb_values()) == ["--n_epochs=3", *ARGS[1:], "--budget=None"]
    assert own_flags(["--scheme=None"], {"scheme": None}) == []


FORMS = {
    "without args": [],
    "args": ARGS,
    "args_no_equals": ["--base_lr", "5e-2", "--image_size", "16", "--use_validation", "True"],
    "args_no_hyphens": [argument.removeprefix("--") for argument in ARGS],
    "args_no_boolean_flags": [*ARGS[:-1], "--use_validation"],
    "args_json": ['{"image_size": 16, "base_lr": 5e-2, "use_validation": true}'],
    "args_json_file": ["cell.json"],
}


@pytest.mark.parametrize("arguments", FORMS.values(), ids=FORMS)
def test_every_form_of_the_command(arguments, cell, monkeypatch, capsys):
    monkeypatch.setattr("neq.experiment.run.dry_run", lambda config, notes: [to_yaml(config)])
    assert neq_main(["train", "--dry-run", *arguments]) == 0
    out = capsys.readouterr().out
    assert "base_lr: 0.05" in out
    assert "ratio: 0.2" in out
    assert "resume: true" in out  # a cell that was started before is gone on with


def test_an_invalid_value_is_one_line_and_code_2(cell, tmp_path, capsys):
    cell.write_text(CELL.replace("5e-2", "-1"))
    assert neq_main(["train"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("neq: base_lr -1 is not allowed")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [cell]


def test_a_file_of_another_kind(cell):
    cell.write_text("base_lr: 1\n")
    with pytest.raises(UserError, match=r"base_lr 1 in cell\.yaml is not as W&B's agent writes it"):
        wandb_values()
