"""A scheme that a user gives as a file."""

import os
from pathlib import Path

import pytest

from neq.config import resolve
from neq.config.catalog import is_recorded_file, recorded_scheme, schemes
from neq.config.writing import to_mapping
from neq.runs import identity
from neq.utils.errors import UserError

SCHEME = """\
# The last blocks.
network: mcunet-in0
budget: 5000
n_bias_update: 3
manual_weight_idx: 30-32
weight_update_ratio: 0.5-0.25
"""
SU = {"neuron_selection": "SU", "initialization": "SU"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "last blocks.yaml"
    path.write_text(SCHEME)
    return path


def test_its_lists_and_its_budget_are_used(path: Path) -> None:
    config = resolve({}, {"scheme": str(path), **SU}).config
    assert config.backward_config.manual_weight_idx == (30, 32)
    assert config.backward_config.weight_update_ratio == (0.5, 0.25)
    assert config.backward_config.n_bias_update == 3
    assert (config.NEq_config.budget, config.NEq_config.ratio) == (5000, None)


def test_on_another_network_its_ratio_is_used(path: Path) -> None:
    resolved = resolve({}, {"scheme": str(path), "net_name": "mbv2"})
    assert resolved.config.NEq_config.ratio == round(5000 / 543_176, 10)
    assert resolved.config.backward_config.manual_weight_idx == ()
    assert "uses its ratio" in resolved.notes[0]
    with pytest.raises(UserError, match="is of mcunet-in0, of which only the ratio applies"):
        resolve({}, {"scheme": str(path), "net_name": "mbv2", **SU})


def test_it_is_recorded_by_its_content(path: Path, tmp_path: Path) -> None:
    first = identity(resolve({}, {"scheme": str(path), **SU}).config)
    assert str(first["scheme"]).startswith("last_blocks@")
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / path.name
    moved.write_text(SCHEME.replace("# The last blocks.\n", ""))  # a comment is no content
    assert identity(resolve({}, {"scheme": str(moved), **SU}).config) == first
    moved.write_text(SCHEME.replace("0.25", "0.5"))
    other = identity(resolve({}, {"scheme": str(moved), **SU}).config)
    assert other["scheme"] != first["scheme"]


def test_what_is_recorded_is_read_without_the_file(path: Path) -> None:
    config = resolve({}, {"scheme": str(path), **SU}).config
    path.unlink()
    assert resolve(to_mapping(config), {}).config == config
    overridden = resolve(to_mapping(config), {"budget": 6000})
    assert overridden.config.NEq_config.scheme is None
    assert overridden.config.backward_config == config.backward_config
    assert "overridden by budget" in overridden.notes[0]


def test_a_record_alone_is_no_scheme(path: Path) -> None:
    label = recorded_scheme(str(path))
    assert is_recorded_file(label)
    with pytest.raises(UserError, match="no budget beside it; give the path of the file"):
        resolve({}, {"scheme": label})


def test_shipped_schemes_are_recorded_by_name() -> None:
    assert all(recorded_scheme(name) == name and not is_recorded_file(name) for name in schemes())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("budget: many\n", "budget"),
        ("budgets: 3\n", "budgets"),
        ("network: no-such\nbudget: 3\n", "net_name 'no-such' is unknown"),
        ("budget: 3\nratio: 0.1\n", "a ratio or a budget, not both"),
        ("- 1\n", "keys with values are expected"),
        ("network: torchvision:resnet18\nbudget: 3\n", "give the scheme a ratio to use it with mcunet-in0"),
    ],
)
def test_a_file_that_is_no_scheme_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=reason):
        resolve({}, {"scheme": str(path)})


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"file 'none\.yaml' does not exist"):
        resolve({}, {"scheme": "none.yaml"})
    with pytest.raises(UserError, match=r"or the path of a \.yaml file"):
        resolve({}, {"scheme": f"folder{os.sep}none"})
