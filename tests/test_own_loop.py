"""The loops of docs/own_loop.md, run as they stand."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.toys import SHAPE, batch, toy

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "own_loop.md").read_text()
VELOCITY, ACCUMULATION = re.findall(r"```python\n(.*?)```", PAGE, re.S)
IMAGES = 12


def run(code, dtype):
    """The names after a loop, and the network before it."""
    network = toy(dtype=dtype)
    before = copy.deepcopy(network)
    names = {
        "network": network,
        "loader": [batch(seed, IMAGES, dtype) for seed in range(3)],
        "held_out": batch(9, 4, dtype)[0],
    }
    for given, small in {"(3, 128, 128)": str(SHAPE), "(32,)": f"({IMAGES},)"}.items():
        assert given in code
        code = code.replace(given, small)
    exec(code, names)
    return names, before


@pytest.mark.parametrize("code", [VELOCITY, ACCUMULATION], ids=["velocity", "accumulation"])
def test_a_loop_stays_within_its_budget_and_moves_what_it_chose(code):
    names, before = run(code, torch.float32)
    assert 0 < names["choice"].used <= names["choice"].limit
    chosen, table, network = names["choice"].chosen, names["table"], names["network"]
    moved = torch.cat(
        [
            (network.get_submodule(name).weight != before.get_submodule(name).weight).flatten(1).any(1)
            for name in (layer.name for layer in table.layers)
        ]
    )
    assert moved.any()
    if code is VELOCITY:  # earlier epochs moved other neurons
        assert names["velocity"].velocity.abs().sum() > 0
        assert len(names["momenta"]) == len(names["plan"].parts)
    else:  # a chosen neuron whose ReLU is never on has no gradient
        assert not moved[~chosen].any()


def test_accumulated_gradients_are_those_of_the_whole_batch():
    names, whole = run(ACCUMULATION, torch.float64)
    plan = names["step"].plan(whole, names["table"], names["table"].selection(names["choice"].chosen))
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.01, momentum=0.9)
    for images, labels in names["loader"]:
        cross_entropy(plan(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()
    for name, weight in names["network"].named_parameters():
        torch.testing.assert_close(weight, whole.get_parameter(name))
