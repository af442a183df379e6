"""Predicted and exact costs of schemes."""

from dataclasses import replace

import pytest
from torch import nn

from neq.networks.build import build_network
from neq.networks.neurons import neuron_table
from neq.scheme_search import SchemeCosts
from neq.scheme_search.contributions import Contributions
from neq.scheme_search.costs import HEAD
from neq.selection import StaticScheme
from neq.utils.errors import UserError
from tests.scheme_search.searching import costs_of
from tests.training.runs import run_of

SCHEMES = [
    HEAD,
    StaticScheme((1,), (1.0,)),
    StaticScheme((0, 3), (0.5, 1.0)),
    StaticScheme((2, 3), (0.25, 0.5), 2),
    StaticScheme((0,), (0.0,), 4),
]


@pytest.mark.parametrize("unit", ["parameters", "macs"])
def test_the_parts_of_a_scheme_add_up_to_its_cost(tmp_path, unit):
    with costs_of(tmp_path, budget_unit=unit, ratio=1.0) as costs:
        for scheme in SCHEMES:
            pairs = [pair for pair in zip(scheme.indices, scheme.ratios, strict=True) if pair[1]]
            count = scheme.n_bias_update
            problem = costs.problem(Contributions(dict.fromkeys(pairs, 1.0), {count: 0.5}), count)
            assert problem.cost(problem.options) == costs.used(scheme)
            assert problem.value(problem.options) == 0.5 + len(pairs)
            assert problem.scheme(problem.options) == scheme


@pytest.mark.parametrize("count", [0, 12])
def test_in_bytes_they_add_up_closely(tmp_path, count):
    network = build_network("mcunet-in0", 10)
    settings = {"image_size": 48, "base_batch_size": 4, "budget_unit": "bytes", "ratio": 1.0}
    with costs_of(tmp_path, network=network, **settings) as costs:
        weights = {(21, 0.5): 1.0, (30, 1.0): 1.0, (42, 0.25): 1.0}
        problem = costs.problem(Contributions(weights, {count: 0.0}), count)
        used = costs.used(problem.scheme(problem.options))
        assert problem.cost(problem.options) == pytest.approx(used, rel=0.05)


def test_biases_cost_what_they_keep(tmp_path):
    with costs_of(tmp_path, budget_unit="bytes", ratio=1.0) as costs:
        assert costs.base(0) < costs.base(2) < costs.base(4)


def test_the_parameters_are_those_that_the_lists_name(tmp_path):
    with costs_of(tmp_path, ratio=0.5) as costs:
        layer = costs.convs[3]
        assert costs.parameters(StaticScheme((3,), (0.5,))) == layer.neurons // 2 * layer.parameters


def test_input_channels_are_counted_as_such(tmp_path):
    with run_of(tmp_path, norm_mode="frozen") as (training, _):
        table = neuron_table(training.network, (3, 12, 12), unit="input_channel")
        costs = SchemeCosts(replace(training, table=table))
        assert costs.convs[0].neurons == 3
        assert costs.used(StaticScheme((0,), (1.0,))) == 3 * costs.convs[0].parameters


def test_a_budget_below_the_head_is_refused(tmp_path):
    with (
        costs_of(tmp_path, budget_unit="bytes", budget=10) as costs,
        pytest.raises(UserError, match="less than what always trains: head and norms need"),
    ):
        assert costs.limit


def test_a_network_without_convs_is_refused(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(432, 8), nn.ReLU(), nn.Linear(8, 10))
    with (
        run_of(tmp_path, network=network) as (training, _),
        pytest.raises(UserError, match="has no convolutions"),
    ):
        SchemeCosts(training)
