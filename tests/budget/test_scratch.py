"""The copies of its weight that a convolution works on, measured once for each device."""

import json

import pytest
import torch

from neq.budget import scratch
from neq.budget.scratch import kept_scratch, measure_scratch

CPU = torch.device("cpu")


def test_a_convolution_works_on_a_few_copies_at_most():
    assert 0 <= measure_scratch(CPU) < 20


def test_a_device_is_measured_once(tmp_path, monkeypatch):
    values = iter([1.5, 2.5, 3.5])
    monkeypatch.setattr(scratch, "measure_scratch", lambda device: next(values))
    assert kept_scratch(CPU, tmp_path / "new") == kept_scratch(CPU, tmp_path / "new") == 1.5
    monkeypatch.setattr(scratch.torch, "__version__", "another")
    assert kept_scratch(CPU, tmp_path / "new") == 2.5
    monkeypatch.undo()
    assert kept_scratch(CPU, tmp_path / "new") == 1.5


@pytest.mark.parametrize("text", ["", "[]", "not json", '"text"'])
def test_a_damaged_file_is_measured_anew(tmp_path, monkeypatch, text):
    monkeypatch.setattr(scratch, "measure_scratch", lambda device: 1.5)
    (tmp_path / "scratch.json").write_text(text)
    assert kept_scratch(CPU, tmp_path) == 1.5
    assert list(json.loads((tmp_path / "scratch.json").read_text()).values()) == [1.5]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "measure_scratch", lambda device: 1.5)
    (tmp_path / "file").write_text("")
    assert kept_scratch(CPU, tmp_path / "file") == 1.5
