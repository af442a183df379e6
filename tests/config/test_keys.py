"""The flat table of keys."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field

from neq.config import POLICIES, keys, load, resolve, section_of, to_mapping
from neq.config.compat import SYNONYMS
from neq.config.keys import (
    KEYS,
    SECTIONS,
    config_model,
    flatten_config,
    flatten_file,
    flatten_overrides,
    nest,
    register_section,
)
from neq.config.schema import Config, Section
from neq.runs.identity import identity
from neq.utils.errors import UserError


def test_leaf_names_are_unique_over_sections_and_top_level() -> None:
    names = [leaf.name for leaf in KEYS.values()] + list(SYNONYMS) + list(SECTIONS)
    assert len(names) == len(set(names))


def test_every_leaf_is_described() -> None:
    assert all(leaf.field.description for leaf in KEYS.values())


def test_sections() -> None:
    core = ["data_provider", "run_config", "net_config", "NEq_config", "backward_config"]
    assert list(SECTIONS) == [*core, "adaptation", "distillation", "int8"]


def test_flat_and_nested_are_the_same_configuration() -> None:
    config = config_model()()
    assert config_model().model_validate(nest(flatten_config(config))) == config
    assert set(flatten_config(config)) == set(KEYS)


def test_choices_and_nulls() -> None:
    assert KEYS["neuron_selection"].choices == tuple(POLICIES)
    assert KEYS["no_wd_keys"].choices == ("norm", "bias")
    assert KEYS["n_epochs"].choices == ()
    assert KEYS["budget"].nullable
    assert not KEYS["n_epochs"].nullable
    assert KEYS["n_epochs"].path == "run_config.n_epochs"
    assert KEYS["device"].path == "device"


def test_files_flatten() -> None:
    values = {"device": "cpu", "run_config": {"n_epochs": 3, "eval_per_epochs": 2}, "net_config": None}
    assert flatten_file(values) == {"device": "cpu", "n_epochs": 3, "test_per_epochs": 2}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"run_confg": {}}, "did you mean 'run_config'?"),
        ({"run_config": {"n_epoch": 1}}, "key of run_config 'n_epoch' is unknown; did you mean 'n_epochs'?"),
        ({"n_epochs": 1}, "n_epochs is not a key of the top level; write it as run_config.n_epochs"),
        (
            {"net_config": {"base_lr": 1}},
            "base_lr is not a key of 'net_config'; write",
        ),
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
    values = {
        **{"n_epochs": 3, "run_config.base_lr": 0.1, "eval_per_epochs": 2, "device": "cpu"},
        **{"NEq_config": {"ratio": 0.2, "scheme": None}, "net_config": {}},
    }
    expected = {
        **{"n_epochs": 3, "base_lr": 0.1, "test_per_epochs": 2, "device": "cpu"},
        **{"ratio": 0.2, "scheme": None},
    }
    assert flatten_overrides(values) == expected


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"n_epoch": 1}, "did you mean 'n_epochs'?"),
        ({"net_config.base_lr": 1}, "write it as run_config.base_lr"),
        ({"run_config.device": 1}, "write it as device"),
        ({".n_epochs": 1}, "write it as run_config.n_epochs"),
        ({"run_config": 3}, "run_config 3 is not allowed: keys with values are expected"),
        ({"run_config": {"device": "cpu"}}, "write it as device"),
        ({"n_epochs": 1, "run_config": {"n_epochs": 2}}, "given twice, as 1 and as 2"),
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


class Planning(Section):
    """A wing's section."""

    device_memory: int = Field(256, ge=1, description="KiB")
    base_lr: float = Field(0.5, gt=0, description="named like a key of the core")


@pytest.fixture
def planning() -> Iterator[None]:
    """A registered section, for one test."""
    sections, table, model = dict(SECTIONS), dict(KEYS), keys._model
    register_section("planning", Planning)
    yield
    SECTIONS.clear()
    SECTIONS.update(sections)
    KEYS.clear()
    KEYS.update(table)
    keys._model = model


@pytest.mark.usefixtures("planning")
def test_a_registered_section_is_settings_flags_and_identity() -> None:
    file = {"NEq_config": {"ratio": 0.3}, "planning": {"device_memory": 64}}
    options, resolved = load(["--planning.base_lr", ".25"], "neq", {"planning.device_memory": 32})
    assert options.overrides == {"device_memory": 32, "planning.base_lr": 0.25}
    assert section_of(resolved.config, Planning) == Planning(device_memory=32, base_lr=0.25)
    resolved = resolve(file, {})
    assert section_of(resolved.config, Planning).device_memory == 64
    assert to_mapping(resolved.config)["planning"] == {"device_memory": 64, "base_lr": 0.5}
    assert identity(resolved.config)["device_memory"] == 64
    assert resolve(to_mapping(resolved.config), {}).config == resolved.config
    with pytest.raises(
        UserError, match=r"device_memory 0 is not allowed: .* \(planning.device_memory: KiB\)"
    ):
        resolve({}, {"device_memory": 0})


@pytest.mark.usefixtures("planning")
def test_a_section_left_at_its_defaults_renames_no_run() -> None:
    keys = Config.model_fields.keys() | {"adaptation", "distillation", "int8", "planning"}
    resolved = resolve({"NEq_config": {"ratio": 0.3}}, {}).config
    assert "device_memory" not in identity(resolved)
    assert keys == resolved.model_dump().keys()


@pytest.mark.usefixtures("planning")
def test_sections_that_cannot_be_registered() -> None:
    class NoDefault(Section):
        limit: int = Field(description="required")

    register_section("planning", Planning)  # again: no change
    with pytest.raises(ValueError, match="'planning' is a section or key already"):
        register_section("planning", NoDefault)
    with pytest.raises(ValueError, match="'device' is a section or key already"):
        register_section("device", Planning)
    with pytest.raises(ValueError, match=r"limits\.limit needs a default"):
        register_section("limits", NoDefault)
