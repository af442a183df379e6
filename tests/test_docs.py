"""The examples of the documentation, run as they stand."""

import re
from pathlib import Path

import pytest
import torch

from neq.cli import main as neq_main
from tests.toys import SHAPE, batch, toy

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_of_ones_own_loop():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/selective_backward.md").read_text(), re.S)
    network = toy(dtype=torch.float32)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    names = {"network": network, "loader": [batch(seed, dtype=torch.float32) for seed in range(3)]}
    exec(code.replace("3, 128, 128)", f"{str(SHAPE)[1:]}"), names)
    assert 0 < names["choice"].used <= names["choice"].limit
    table, chosen = names["table"], names["choice"].chosen
    moved = [
        (network.get_submodule(layer.name).weight != before[f"{layer.name}.weight"]).flatten(1).any(1)
        for layer in table.layers
    ]
    assert torch.cat(moved).any()
    assert not torch.cat(moved)[~chosen].any()


@pytest.mark.slow
def test_the_commands_of_the_readme_are_understood(tmp_path, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text()
    commands = [
        line.removeprefix("python train_classification.py ").split()
        for line in text.splitlines()
        if line.startswith("python train_classification.py --") and "image_folder" not in line
    ]
    assert len(commands) >= 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neq.experiment.dry_run.predicted_line", lambda _: "")  # which takes a second
    for command in commands:
        if command == ["--help"]:
            continue
        assert neq_main(["train", *command, *([] if "--dry-run" in command else ["--dry-run"])]) == 0
    assert not list(tmp_path.iterdir())
    assert "scheme: mbv2_scheme_1" in capsys.readouterr().out


def test_the_task_example_of_the_architecture_page(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["summary"]["epochs"] == 1
    assert (tmp_path / "my_run/last.pt").exists()


def test_the_example_of_the_partition_page(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/partition.md").read_text(), re.S)
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == ["a (112, 14, 14)", "a (184, 7, 7)", "a (352, 7, 7)"]


def test_the_example_of_the_compression_page(tiny_run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch_pruning", reason="the extra compression is not installed")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/compression.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("runs/...", str(tiny_run)), {})
    assert "name='widths'" in capsys.readouterr().out
    assert (tmp_path / "small" / "best.safetensors").exists()
