import pytest

from neq.sweeps import Sweep, cells, check_search, grid, grid_size
from neq.sweeps.parameters import read_parameters
from neq.utils.errors import UserError


def sweep_of(parameters, method="grid"):
    sweep = Sweep(program="train_classification.py", method=method, parameters={})
    return sweep.model_copy(update={"parameters": read_parameters(parameters)})


def test_cells_come_in_the_order_of_wandb():
    """Parameters sorted by name, the last one fastest; constants and lists of one included."""
    sweep = sweep_of(
        {
            "n_epochs": {"values": [2, 1]},
            "dataset": {"value": "digits"},
            "manual_seed": {"values": [5, 3, 5]},
            "ratio": {"values": [0.5]},
        }
    )
    assert grid_size(sweep) == 4
    rows = [(cell["manual_seed"], cell["n_epochs"]) for cell in grid(sweep)]
    assert rows == [(5, 2), (5, 1), (3, 2), (3, 1)]
    found = cells(sweep)
    assert [cell.number for cell in found] == [1, 2, 3, 4]
    assert found[0].values == {"dataset": "digits", "manual_seed": 5, "n_epochs": 2, "ratio": 0.5}
    assert [cell.config.manual_seed for cell in found] == [5, 5, 3, 3]
    assert {cell.config.NEq_config.ratio for cell in found} == {0.5}


def test_ranges_that_a_grid_can_enumerate():
    sweep = sweep_of(
        {
            "n_epochs": {"min": 1, "max": 3},
            "ratio": {"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.2},
        }
    )
    assert [cell["n_epochs"] for cell in grid(sweep)] == [1, 1, 2, 2, 3, 3]
    # As in W&B, the end of q_uniform is not part of a grid.
    assert [cell["ratio"] for cell in grid(sweep)][:2] == pytest.approx([0.1, 0.3])
    assert len(cells(sweep)) == grid_size(sweep) == 6


def test_nested_parameters_reach_their_section():
    (cell,) = cells(sweep_of({"run_config": {"parameters": {"base_lr": {"value": "1e-2"}}}}))
    assert cell.values == {"run_config.base_lr": "1e-2"}
    assert cell.config.run_config.base_lr == 0.01


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_a_rate_may_be_searched_beside_given_ones(method):
    sweep = sweep_of({"base_lr": {"values": [0.05, "auto", "1e-2"]}}, method)
    if method == "grid":
        assert [cell.config.run_config.base_lr for cell in cells(sweep)] == [0.05, "auto", 0.01]
    else:
        check_search(sweep)


def test_what_is_ignored_is_noted():
    values = {"scheme": {"value": "mbv2_scheme_1"}, "net_name": {"value": "resnet18"}}
    (cell,) = cells(sweep_of(values))
    assert "resnet18 uses its ratio" in cell.notes[0]


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"n_epoch": {"value": 1}}, "cell 1 of 1: key 'n_epoch' is unknown; did you mean 'n_epochs'"),
        (
            {"n_epochs": {"values": [1, 0]}, "ratio": {"value": 0.5}},
            "cell 2 of 2 (n_epochs: 0): n_epochs 0 is not allowed",
        ),
        (
            {
                "neuron_selection": {"values": ["velocity", "SU"]},
                "scheme": {"value": "mbv2_scheme_1"},
                "net_name": {"values": ["mbv2", "resnet18"]},
            },
            "cell 4 of 4 (net_name: 'resnet18', neuron_selection: 'SU'): neuron_selection 'SU' needs lists",
        ),
        ({"budget": {"value": 8}, "ratio": {"value": 0.5}}, "ratio 0.5 and budget 8 are both given"),
        ({"base_lr": {"min": 0.1, "max": 1.0}}, "parameters.base_lr: a grid cannot enumerate uniform"),
        (
            {"n_epochs": {"values": [1, 2], "probabilities": [0.5, 0.5]}},
            "probabilities have no meaning in a grid",
        ),
        (
            {"ratio": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 1e-320}},
            "the grid has more than 10,000 cells",
        ),
        ({"ratio": {"distribution": "q_uniform", "min": 1, "max": 1}}, "so there is no value from 1 on"),
        ({"manual_seed": {"min": 0, "max": 10_000}}, "the grid has more than 10,000 cells"),
    ],
)
def test_the_first_invalid_cell_is_named(parameters, line):
    with pytest.raises(UserError) as caught:
        cells(sweep_of(parameters))
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_search_is_tried_at_its_ends():
    fine = {
        "base_lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 1},
        "momentum": {"values": [0, 0.9], "probabilities": [0.5, 0.5]},
        "weight_decay": {"distribution": "log_uniform", "min": -9, "max": -3},
        "final_lr": {"distribution": "inv_log_uniform", "min": 3, "max": 9},
        "ratio": {"distribution": "beta"},
        "n_epochs": {"distribution": "q_uniform", "min": 2, "max": 9},
        "color_aug": {"distribution": "normal", "mu": 0.4, "sigma": 0.1},
    }
    check_search(sweep_of(fine, "random"))


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"momentum": {"min": 0.0, "max": 1.0}}, "a run (momentum: 1.0): momentum 1.0 is not allowed"),
        ({"n_epochs": {"min": 1.0, "max": 9.0}}, "n_epochs 5.944 is not allowed: an integer is expected"),
        ({"color_aug": {"distribution": "normal"}}, "color_aug -1"),
        (
            {"dataset": {"values": ["digits", "digit"]}},
            "a run (dataset: 'digit'): dataset 'digit' is unknown",
        ),
    ],
)
def test_a_search_that_leaves_what_is_allowed(parameters, line):
    with pytest.raises(UserError, match=r"is not allowed|is unknown") as caught:
        check_search(sweep_of(parameters, "random"))
    assert line in str(caught.value)
