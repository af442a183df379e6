import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import neq
from neq.config import POLICIES, Policy, policies, register, resolve
from neq.config.keys import KEYS
from neq.utils.errors import UserError

PACKAGE = Path(neq.__file__).parent


@pytest.fixture
def first():
    """A policy that a user registers: the first neurons first."""
    policy = Policy("first", __name__, may_initialize=True)
    register(policy)
    yield policy
    del policies._REGISTRY["first"]


def score(state):
    return -torch.arange(len(state.table), dtype=torch.float64)


def test_a_registered_policy_is_a_setting_at_once(first):
    settings = {"neuron_selection": "first", "initialization": "first"}
    assert resolve({}, settings).config.NEq_config.neuron_selection == "first"
    with pytest.raises(UserError, match="neuron_selection 'frist' is unknown; did you mean 'first'"):
        resolve({}, {"neuron_selection": "frist"})
    register(first)
    with pytest.raises(ValueError, match="a policy 'first' already"):
        register(Policy("first", "elsewhere"))


def test_an_unknown_policy_is_refused_with_those_that_are_known():
    with pytest.raises(UserError) as caught:
        resolve({}, {"neuron_selection": "magnitude"})
    allowed = ", ".join(sorted(POLICIES))
    assert str(caught.value) == f"neuron_selection 'magnitude' is unknown. Allowed: {allowed}."
    with pytest.raises(UserError) as caught:
        resolve({}, {"initialization": "taylor"})
    assert str(caught.value).startswith("initialization 'taylor' is unknown")
    assert str(caught.value).endswith(f"Allowed: {', '.join(sorted(policies.initializers()))}.")


def test_what_is_measured_in_training_cannot_begin_it():
    with pytest.raises(ValueError, match="policy 'mine' needs gradients and cannot choose"):
        Policy("mine", "mine", needs="gradients", may_initialize=True)


@pytest.mark.parametrize("key", ["neuron_selection", "initialization"])
def test_a_policy_of_another_unit_is_refused(first, key):
    policies._REGISTRY["first"] = Policy("first", __name__, units=("neuron",), may_initialize=True)
    given = {"neuron_selection": "random", "initialization": "random", key: "first"}
    names = policies.initializers() if key == "initialization" else tuple(POLICIES)
    others = ", ".join(name for name in names if "input_channel" in POLICIES[name].units)
    with pytest.raises(UserError) as caught:
        resolve({}, {"unit": "input_channel", **given})
    assert str(caught.value) == (
        f"{key} 'first' does not rank by unit 'input_channel'; take unit 'neuron', or one of {others}"
    )


def test_listing_policies_loads_no_torch():
    code = "import sys, neq.config; assert 'torch' not in sys.modules; print(*neq.config.POLICIES)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(POLICIES)


def test_a_policy_brings_its_settings_unless_they_are_given_beside_its_name():
    brought = POLICIES["auto"].defaults
    assert brought == {"initialization": "head", "norm_mode": "frozen", "cost_aware": True}
    file = {"NEq_config": {"norm_mode": "train", "initialization": "random"}}

    def of(file, **given):
        settings = resolve(file, given).config.NEq_config
        return {key: getattr(settings, key) for key in brought}

    assert of({}, neuron_selection="auto") == brought
    assert of(file, neuron_selection="auto") == brought
    assert of(file, neuron_selection="auto", norm_mode="frontier") == {**brought, "norm_mode": "frontier"}
    whole = {"NEq_config": {**file["NEq_config"], "neuron_selection": "auto"}}
    assert of(whole) == {**brought, "norm_mode": "train", "initialization": "random"}
    assert of(file)["norm_mode"] == "train"


def test_no_code_asks_for_a_policys_name():
    """A policy's name is compared in its own file alone; whatever differs between policies, they declare."""
    own = {PACKAGE / "selection" / f"{name.lower()}.py" for name in POLICIES}
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path not in own
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and _names_a_policy(node)
    ]
    assert not found


# Names that are a word of no other setting: "auto" is one of device and cache too.
_POLICIES_ALONE = set(POLICIES) - {
    word
    for key in KEYS.values()
    if key.flat_name not in ("neuron_selection", "initialization")
    for word in key.choices
}


def _names_a_policy(node: ast.Compare) -> bool:
    if isinstance(node.left, ast.Attribute) and node.left.attr == "needs":
        return False
    constants = (part for side in (node.left, *node.comparators) for part in ast.walk(side))
    return any(isinstance(part, ast.Constant) and part.value in _POLICIES_ALONE for part in constants)
