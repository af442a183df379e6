import pytest

from neq.budget import Budget, amount_shown


@pytest.mark.parametrize(
    ("ratio", "amount"),
    [
        (0.0878233231, 192312),
        (0.1508110478, 330240),
        (0.212187637, 464640),
        (0.2735642262, 599040),
        (0.3084995616, 675540),
        (0, 0),
        (1, 2189760),
        (1.5, 3284640),
    ],
)
def test_ratios_are_rounded_not_truncated(ratio, amount):
    assert Budget(ratio=ratio).limit(2189760) == amount


def test_an_absolute_budget_is_itself():
    assert Budget(amount=192311).limit(100) == 192311


@pytest.mark.parametrize(
    "given",
    [{}, {"ratio": 0.5, "amount": 3}, {"amount": -1}, {"ratio": -0.5}, {"unit": "cm", "amount": 1}],
)
def test_an_impossible_budget_is_refused(given):
    with pytest.raises(ValueError, match="budget"):
        Budget(**given)


def test_amounts_are_shown_with_their_unit():
    assert amount_shown(192312, "parameters") == "192,312 parameters"
    assert amount_shown(1000, "macs") == "1,000 MACs"
    assert amount_shown(1_234_567, "time") == "1.235 ms"
    assert amount_shown(3 * 2**19, "bytes") == "1,572,864 bytes (1.50 MiB)"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "either an amount or a ratio, not amount=None and ratio=None"),
        ({"ratio": float("nan")}, "budget ratio nan is not allowed; it must be a finite number, 0 or more"),
        ({"ratio": float("inf")}, "budget ratio inf is not allowed"),
        ({"amount": -1}, "budget amount -1 is not allowed"),
        ({"unit": "byte", "amount": 1}, "budget unit 'byte' is unknown; did you mean 'bytes'"),
    ],
)
def test_an_error_names_the_argument(given, error):
    """Fault F5: `Budget()` asked for an argument `budget`, and NaN was called negative."""
    with pytest.raises(ValueError, match=error):
        Budget(**given)
