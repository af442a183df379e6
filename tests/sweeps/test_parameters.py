import pytest

from neq.sweeps.parameters import DEFAULTS, DISTRIBUTIONS, Choice, Drawn, read_parameters
from neq.utils.errors import UserError


def one(value):
    return read_parameters({"p": value})["p"]


def test_values_and_constants():
    assert one({"value": None}) == Choice((None,))
    assert one({"value": 3, "distribution": "constant"}) == Choice((3,))
    assert one({"distribution": "categorical", "values": ["a", 1, True, [30, 60]]}) == (
        Choice(("a", 1, True, [30, 60]))
    )
    # To W&B 3 and 3.0 are one value, 1 and true are not.
    assert one({"values": [3, 3.0, 1, True, 3]}) == Choice((3, 1, True))
    assert one({"values": [1, 2], "probabilities": [0.25, 0.75]}) == Choice((1, 2), (0.25, 0.75))


def test_a_range_alone_is_uniform_over_its_kind():
    assert one({"min": 1, "max": 4}) == Drawn("int_uniform", {"min": 1, "max": 4})
    assert one({"min": 1, "max": 4.0}) == Drawn("uniform", {"min": 1, "max": 4.0})


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_distribution_of_wandb_is_read(name):
    wanted = DISTRIBUTIONS[name]
    given = {key: value for key, value in {"min": 1, "max": 9}.items() if key in wanted}
    read = one({"distribution": name, **given})
    assert isinstance(read, Drawn)
    assert read.numbers == {key: given.get(key, DEFAULTS.get(key)) for key in wanted}
    assert tuple(read.numbers) == wanted
    with pytest.raises(UserError, match=r"^parameters\.p\.other is not allowed: "):
        one({"distribution": name, **given, "other": 1})


def test_nested_parameters_become_paths():
    given = {
        "run_config": {"parameters": {"n_epochs": {"values": [1, 2]}, "base_lr": {"value": 0.1}}},
        "dataset": {"value": "digits"},
    }
    assert list(read_parameters(given)) == ["run_config.n_epochs", "run_config.base_lr", "dataset"]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (3, "parameters.p 3 is not allowed: write {value: 3}"),
        ({}, "parameters.p is not complete: give value, values, min and max, or a distribution"),
        ({"min": 1}, "parameters.p is not complete: give value, values, min and max, or a distribution"),
        ({"value": 1, "values": [1]}, "parameters.p has both value and values; give one of them"),
        ({"vales": [1]}, "key of parameters.p 'vales' is unknown; did you mean 'values'?"),
        (
            {"values": []},
            "parameters.p.values [] is not allowed: values are expected, as [1, 2]",
        ),
        (
            {"values": 3},
            "parameters.p.values 3 is not allowed: values are expected, as [1, 2]",
        ),
        ({"distribution": "unifrom", "min": 0, "max": 1}, "did you mean 'uniform'?"),
        ({"distribution": ["uniform"]}, "parameters.p.distribution \"['uniform']\" is unknown"),
        ({"distribution": "categorical"}, "parameters.p: values is missing; categorical takes values, prob"),
        ({"distribution": "uniform", "min": 0}, "parameters.p: max is missing; uniform takes min, max"),
        ({"min": 2, "max": 1}, "parameters.p: min 2 is greater than max 1; exchange them"),
        ({"distribution": "uniform", "min": "a", "max": 1}, "parameters.p.min 'a' is not allowed: a number"),
        ({"distribution": "uniform", "min": True, "max": 1}, "parameters.p.min True is not allowed"),
        ({"distribution": "normal", "mu": float("nan")}, "parameters.p.mu nan is not allowed"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 1}, "an integer is expected (or take uniform)"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "needs values greater than 0"),
        ({"distribution": "q_normal", "q": 0}, "parameters.p.q 0 is not allowed: it must be greater than 0"),
        (
            {"distribution": "log_uniform", "min": 0, "max": 1000},
            "parameters.p.max 1000 is not allowed: it is",
        ),
        ({"values": [1, 2], "probabilities": [1]}, "a list of 2 is expected, one per value"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "parameters.p.probabilities add up to 1.1"),
        ({"values": [1, 2], "probabilities": [-1, 2]}, "it must be 0 or more"),
        (
            {"value": 1, "probabilities": [1]},
            "parameters.p.probabilities is not allowed: constant takes value",
        ),
        (
            {"parameters": {"a": {"value": 1}}, "value": 2},
            "parameters.p has parameters and 'value' beside it",
        ),
        ({"parameters": {}}, "parameters.p.parameters {} is not allowed: at least one parameter"),
        ({"parameters": {"a": {}}}, "parameters.p.parameters.a is not complete"),
    ],
)
def test_mistakes_are_one_line(value, line):
    with pytest.raises(UserError) as caught:
        one(value)
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
