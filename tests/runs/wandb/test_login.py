"""Whether W&B can be used, and the reason where it cannot."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from neq.runs import why_no_wandb


@pytest.mark.parametrize(
    ("file", "text", "variables", "logged_in"),
    [
        (".netrc", "machine api.wandb.ai login user password x", {}, True),
        (".netrc", "machine api.wandb.ai login user password x", {"WANDB_BASE_URL": "http://other:8"}, False),
        (".netrc", "machine other:8 login user password x", {"WANDB_BASE_URL": "http://other:8"}, True),
        (".netrc", "broken {", {}, False),
        (".config/wandb/settings", "[default]\nmode = offline", {}, True),
        (".config/wandb/settings", "not a settings file", {}, False),
        ("nothing", "", {"WANDB_API_KEY": "x"}, True),
        ("nothing", "", {"WANDB_SWEEP_ID": "x"}, True),
        ("nothing", "", {}, False),
    ],
)
def test_who_is_logged_in(file, text, variables, logged_in, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert why_no_wandb(variables) == (None if logged_in else "not logged in to W&B (wandb login)")


def test_wandb_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("neq.runs.wandb.login.find_spec", lambda name: None)
    assert why_no_wandb({}) == "W&B is not installed (pip install wandb)"


def test_the_requirements_bring_the_client_and_the_package_does_not_need_it():
    pytest.importorskip("wandb")
    root = Path(__file__).resolve().parents[3]
    assert f"wandb=={version('wandb')}" in (root / "requirements.txt").read_text().splitlines()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert not [name for name in project["dependencies"] if name.startswith("wandb")]
