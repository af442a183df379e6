"""The flat table of keys."""

from typing import Any

import pytest

from neq.config.keys import (
    ALL_LEAVES,
    LEAVES,
    SECTIONS,
    SYNONYMS,
    flatten_config,
    flatten_file,
    flatten_overrides,
    nest,
)
from neq.config.schema import Config
from neq.utils.errors import UserError


def test_leaf_names_are_unique_over_sections_and_top_level() -> None:
    names = [leaf.name for leaf in ALL_LEAVES] + list(SYNONYMS) + list(SECTIONS)
    assert len(names) == len(set(names))


def test_every_leaf_is_described() -> None:
    assert all(leaf.field.description for leaf in ALL_LEAVES)


def test_sections() -> None:
    assert list(SECTIONS) == ["data_provider", "run_config", "net_config", "NEq_config", "backward_config"]


def test_flat_and_nested_are_the_same_configuration() -> None:
    config = Config()
    assert Config.model_validate(nest(flatten_config(config))) == config
    assert set(flatten_config(config)) == set(LEAVES)


def test_choices_and_nulls() -> None:
    assert LEAVES["neuron_selection"].choices == ("SU", "velocity", "random", "full")
    assert LEAVES["no_wd_keys"].choices == ("norm", "bias")
    assert LEAVES["n_epochs"].choices == ()
    assert LEAVES["budget"].nullable
    assert not LEAVES["n_epochs"].nullable
    assert LEAVES["n_epochs"].path == "run_config.n_epochs"
    assert LEAVES["device"].path == "device"


def test_files_flatten() -> None:
    values = {"device": "cpu", "run_config": {"n_epochs": 3, "eval_per_epochs": 2}, "net_config": None}
    assert flatten_file(values) == {"device": "cpu", "n_epochs": 3, "test_per_epochs": 2}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"run_confg": {}}, "did you mean 'run_config'?"),
        ({"run_config": {"n_epoch": 1}}, "key of run_config 'n_epoch' is unknown; did you mean 'n_epochs'?"),
        ({"n_epochs": 1}, "n_epochs is no key of the top level; write it as run_config.n_epochs"),
        ({"net_config": {"base_lr": 1}}, "base_lr is no key of 'net_config'; write it as run_config.base_lr"),
        ({"run_config": [1]}, "run_config [1] is not allowed: keys with values are expected"),
        ({"run_config": {"test_per_epochs": 1, "eval_per_epochs": 2}}, "given twice, as 1 and as 2"),
    ],
)
def test_files_that_do_not(values: Any, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        flatten_file(values)
    assert problem in str(caught.value)


def test_synonyms_that_agree() -> None:
    assert flatten_file({"run_config": {"test_per_epochs": 2, "eval_per_epochs": 2}}) == {
        "test_per_epochs": 2
    }


def test_overrides_flatten() -> None:
    values = {"n_epochs": 3, "run_config.base_lr": 0.1, "eval_per_epochs": 2, "device": "cpu"}
    expected = {"n_epochs": 3, "base_lr": 0.1, "test_per_epochs": 2, "device": "cpu"}
    assert flatten_overrides(values) == expected


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"n_epoch": 1}, "did you mean 'n_epochs'?"),
        ({"net_config.base_lr": 1}, "write it as run_config.base_lr"),
        ({"run_config.device": 1}, "write it as device"),
        ({".n_epochs": 1}, "write it as run_config.n_epochs"),
        ({"run_config": {}}, "key 'run_config' is unknown"),
        ({"n_epochs": 1, "run_config.n_epochs": 2}, "given twice, as 1 and as 2"),
    ],
)
def test_overrides_that_do_not(values: Any, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        flatten_overrides(values)
    assert problem in str(caught.value)


def test_none_is_left_out_where_it_means_the_default() -> None:
    nested = nest({"n_epochs": None, "budget": None, "device": None, "run_dir": None})
    assert nested["run_config"] == {}
    assert nested["NEq_config"] == {"budget": None}
    assert "device" not in nested
    assert nested["run_dir"] is None
