"""A written configuration reads back as itself."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neq.config.keys import KEYS, config_model
from neq.config.reading import read_yaml
from neq.config.resolve import resolve
from neq.config.writing import flow_value, to_mapping, to_yaml
from neq.config.yaml import parse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLACE = TEXT.filter(lambda text: "\0" not in text)  # which no system takes


def positive(most: float) -> st.SearchStrategy[float]:
    return st.floats(min_value=0, max_value=most, exclude_min=True)


OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "project_name": TEXT,
        "run_dir": st.none() | PLACE,
        "root": st.none() | PLACE,
        "manual_seed": st.integers(0, 2**63 - 1),
        "resume": st.booleans(),
        "base_lr": positive(10),
        "final_lr": positive(1),
        "weight_decay": positive(1),
        "lr_step_size": st.integers(1, 99) | st.lists(st.integers(1, 99), max_size=3),
        "no_wd_keys": st.sets(st.sampled_from(["norm", "bias"])).map(sorted),
        "mean_std": st.lists(st.tuples(*[positive(1)] * 3), min_size=2, max_size=2),
        "net_name": st.sampled_from(["mbv2", "pre_trained_mbv2", "mcunet-in1", "resnet18"]),
        "scheme": st.sampled_from([None, "mbv2_scheme_2", "mcunet-in1_scheme_3", "scheme_baseline"]),
        "ratio": positive(1),
        "n_bias_update": st.integers(0, 50),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(overrides=OVERRIDES)
def test_round_trip(tmp_path: Path, overrides: dict[str, Any]) -> None:
    config = resolve({}, overrides).config
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    values = read_yaml(path)
    assert values == to_mapping(config)
    again = resolve(values, {})
    assert again.config == config
    assert to_yaml(again.config) == to_yaml(config)


@given(st.text())
def test_any_text_on_one_line(text: str) -> None:
    written = flow_value(text)
    assert len(written.splitlines()) == 1
    assert parse(written) == text
    assert parse(f"{{a: {written}, b: [{written}]}}") == {"a": text, "b": [text]}


def test_values_are_readable() -> None:
    assert flow_value("runs/a-1_b.c") == "runs/a-1_b.c"
    assert flow_value("1e3") == '"1e3"'
    assert flow_value("null") == '"null"'
    assert flow_value("no") == "no"
    assert flow_value(("norm", "bias")) == "[norm, bias]"
    assert flow_value({"mean": [0.5, 1.0]}) == "{mean: [0.5, 1.0]}"
    assert flow_value(None) == "null"
    assert flow_value(True) == "true"
    assert flow_value(0.0878233231) == "0.0878233231"
    assert flow_value("josé") == '"josé"'


def test_every_key_stands_in_its_section() -> None:
    text = to_yaml(config_model()())
    assert text.startswith("project_name: neq\nrun_dir: null\n")
    for leaf in KEYS.values():
        indent = "  " if leaf.section else ""
        assert f"\n{indent}{leaf.name}: " in "\n" + text
