"""Ratio, budget, scheme and lists: who wins."""

from typing import Any

import pytest

from neq.config.resolve import Resolved, resolve
from neq.config.writing import to_mapping
from neq.utils.errors import UserError

IN1_2 = {
    "n_bias_update": 21,
    "manual_weight_idx": (21, 23, 24, 26, 27, 30),
    "weight_update_ratio": (1, 0, 1, 0, 0.5, 1),
}


def run(file: dict[str, Any], flags: dict[str, Any], net: str = "mbv2") -> Resolved:
    """Resolves NEq_config values of a file, and holds that the result resolves to itself."""
    resolved = resolve({"NEq_config": file, "net_config": {"net_name": net}}, flags)
    again = resolve(to_mapping(resolved.config), {})
    assert again.config == resolved.config
    return resolved


@pytest.mark.parametrize(
    ("file", "flags", "scheme", "ratio", "budget"),
    [
        ({}, {}, None, 1.0, None),
        ({"ratio": 0.3}, {}, None, 0.3, None),
        ({"ratio": 0}, {}, None, 0.0, None),
        ({"budget": 7}, {}, None, None, 7),
        ({"ratio": 0.3, "budget": 7}, {}, None, 0.3, None),
        ({"ratio": 0.3}, {"budget": 7}, None, None, 7),
        ({"budget": 7}, {"ratio": 0.3}, None, 0.3, None),
        ({"budget": 7, "ratio": 0.3}, {"ratio": 0.4}, None, 0.4, None),
        ({"budget": 7, "ratio": 0.3}, {"budget": None}, None, 0.3, None),
        ({"ratio": 0.3, "scheme": "mbv2_scheme_1"}, {}, "mbv2_scheme_1", 0.0878233231, None),
        ({"budget": 7, "scheme": "mbv2_scheme_1"}, {}, "mbv2_scheme_1", 0.0878233231, None),
        ({"budget": 7}, {"scheme": "mbv2_scheme_6"}, "mbv2_scheme_6", 0.5, None),
        ({"scheme": "mbv2_scheme_1"}, {"scheme": None}, None, 1.0, None),
        ({"scheme": "mbv2_scheme_1"}, {"ratio": 0.3}, None, 0.3, None),
        ({"scheme": "mbv2_scheme_1"}, {"budget": 192311}, None, None, 192311),
        ({"scheme": "mbv2_scheme_1"}, {"ratio": 0.0878233231}, "mbv2_scheme_1", 0.0878233231, None),
        ({"budget": 7}, {"scheme": "scheme_baseline"}, "scheme_baseline", 1.0, None),
        ({}, {"scheme": "scheme_fixed_budget", "budget": 192311}, "scheme_fixed_budget", None, 192311),
        ({"scheme": "scheme_fixed_budget", "budget": 5}, {"budget": 6}, "scheme_fixed_budget", None, 6),
        ({"scheme": "scheme_fixed_budget", "budget": 5}, {}, "scheme_fixed_budget", None, 5),
        ({"scheme": "scheme_fixed_budget", "budget": 0}, {}, "scheme_fixed_budget", None, 0),
        ({"scheme": "scheme_fixed_budget", "glob_num_params": 9}, {}, "scheme_fixed_budget", None, 9),
        ({"scheme": "scheme_fixed_budget", "ratio": 0.3, "budget": 5}, {}, "scheme_fixed_budget", None, 5),
        ({"scheme": "scheme_fixed_budget"}, {"ratio": 0.3}, None, 0.3, None),
        ({"scheme": "mcunet-in1_scheme_1"}, {}, "mcunet-in1_scheme_1", 0.0261130876, None),
    ],
)
def test_precedence(
    file: dict[str, Any], flags: dict[str, Any], scheme: str | None, ratio: float | None, budget: int | None
) -> None:
    settled = run(file, flags).config.NEq_config
    assert (settled.scheme, settled.ratio, settled.budget) == (scheme, ratio, budget)


def test_both_budgets_as_flags_are_refused() -> None:
    with pytest.raises(UserError, match=r"ratio 0\.3 and budget 7 are both given"):
        run({}, {"ratio": 0.3, "budget": 7})


def test_a_fixed_budget_must_be_given() -> None:
    with pytest.raises(UserError, match="--budget"):
        run({"scheme": "scheme_fixed_budget", "ratio": 0.3}, {})


def test_a_scheme_at_home_sets_its_lists() -> None:
    resolved = run({}, {"scheme": "mcunet-in1_scheme_2", "neuron_selection": "SU"}, "mcunet-in1")
    assert resolved.config.NEq_config.budget == 29440
    assert resolved.config.backward_config.model_dump() == IN1_2
    assert resolved.notes == ()


@pytest.mark.parametrize("net", ["mbv2", "pre_trained_mbv2"])
def test_weights_do_not_change_where_a_scheme_is_at_home(net: str) -> None:
    lists = run({}, {"scheme": "mbv2_scheme_1"}, net).config.backward_config
    assert lists.manual_weight_idx == (36, 39, 40, 41, 42, 45, 48, 49)


def test_on_another_network_only_the_ratio_of_a_scheme_applies() -> None:
    file = {"NEq_config": {"scheme": "mbv2_scheme_1"}, "backward_config": IN1_2}
    resolved = resolve(file, {"net_name": "resnet18"})
    assert resolved.config.NEq_config.ratio == 0.0878233231
    assert resolved.config.NEq_config.scheme == "mbv2_scheme_1"
    assert resolved.config.backward_config.model_dump() == {
        "n_bias_update": 0,
        "manual_weight_idx": (),
        "weight_update_ratio": (),
    }
    assert any("mbv2_scheme_1 is of mbv2: resnet18 uses its ratio" in note for note in resolved.notes)


def test_an_absolute_budget_abroad_becomes_a_ratio() -> None:
    settled = run({}, {"scheme": "mcunet-in1_scheme_5"}, "mbv2").config.NEq_config
    assert settled.ratio == round(98560 / 463216, 10)
    assert settled.budget is None


def test_lists_given_as_flags_win() -> None:
    flags = {"manual_weight_idx": "3-5", "weight_update_ratio": "1-.5", "neuron_selection": "SU"}
    at_home = run({}, {"scheme": "mbv2_scheme_1", **flags})
    assert at_home.config.backward_config.manual_weight_idx == (3, 5)
    assert at_home.config.backward_config.n_bias_update == 16
    assert at_home.config.NEq_config.ratio == 0.0878233231
    assert at_home.config.NEq_config.scheme is None
    assert any("overridden by manual_weight_idx, weight_update_ratio" in n for n in at_home.notes)
    abroad = run({}, {"scheme": "mbv2_scheme_1", **flags}, "resnet18")
    assert abroad.config.backward_config.weight_update_ratio == (1, 0.5)


def test_a_scheme_of_no_network_leaves_the_lists_alone() -> None:
    file = {"backward_config": IN1_2}
    for scheme, budget in (("scheme_baseline", None), ("scheme_fixed_budget", 5)):
        resolved = resolve(file, {"scheme": scheme, "budget": budget, "neuron_selection": "SU"})
        assert resolved.config.backward_config.model_dump() == IN1_2


@pytest.mark.parametrize("key", ["neuron_selection", "initialization"])
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({}, "no scheme is given"),
        ({"scheme": "mbv2_scheme_1"}, "scheme 'mbv2_scheme_1' is of mbv2, of which only the ratio applies"),
        ({"scheme": "scheme_baseline"}, "scheme 'scheme_baseline' has no lists"),
        ({"scheme": "mbv2_scheme_6", "net_name": "mbv2"}, "scheme 'mbv2_scheme_6' has no lists"),
    ],
)
def test_su_needs_lists(key: str, flags: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        run({}, {key: "SU", **flags}, "resnet18")
    assert str(caught.value).startswith(f"{key} 'SU' needs lists for network")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("indices", "shares", "problem"),
    [
        ("1-2", "1", "2 values"),
        ("2-1", "1-1", "ascending"),
        ("1-1", "1-1", "ascending"),
        ("", "1", "0 values"),
    ],
)
def test_lists_that_do_not_fit(indices: str, shares: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        run({}, {"manual_weight_idx": indices, "weight_update_ratio": shares})


def test_notes_about_ratio_and_budget() -> None:
    both = {"ratio": 0.3, "budget": 7}
    assert "ignoring budget=7: ratio 0.3 is given too" in run(both, {}).notes[0]
    assert run(both, {}).config.NEq_config.ratio == 0.3
    fixed = run(both, {"scheme": "scheme_fixed_budget"})
    assert (fixed.config.NEq_config.budget, fixed.config.NEq_config.ratio, fixed.notes) == (7, None, ())
    assert "neither ratio nor budget" in run({}, {}).notes[0]
    assert run({"ratio": 0.3}, {"budget": 7}).notes == ()
