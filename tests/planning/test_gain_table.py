from pathlib import Path

import pytest
import torch
from torch import nn

from neq.planning.gain import Mean
from neq.planning.gain_table import read_means, table_path, write_means

CPU = torch.device("cpu")


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.json"
    assert read_means(path) == {}
    means = {"100%, frozen norms, exact": Mean(0.01, 0.002), "as set": Mean(0.0, 0.1)}
    write_means(path, means)
    assert read_means(path) == means


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 3}', '{"a": {"rate": 1}}', '{"a": {"rate": "x"}}'])
def test_a_damaged_table_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    assert read_means(path) == {}


def test_a_table_where_nothing_can_be_written_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write_means(tmp_path / "file" / "table.json", {"a": Mean(1.0, 1.0)})
    assert read_means(tmp_path / "file" / "table.json") == {}


def test_a_table_for_each_network_and_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Linear(2, 3))
    own = table_path(tmp_path, CPU, network, 64)
    assert own == table_path(tmp_path, CPU, nn.Sequential(nn.Linear(2, 3)), 64)  # other weights
    others = [table_path(tmp_path, CPU, nn.Linear(2, 4), 64), table_path(tmp_path, CPU, network, 32)]
    monkeypatch.setattr(torch, "__version__", "1.0")
    others.append(table_path(tmp_path, CPU, network, 64))
    assert len({own, *others}) == 4
