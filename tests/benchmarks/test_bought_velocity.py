import pytest

from benchmarks.bought_velocity import bought, main


@pytest.mark.slow
def test_a_budget_buys_more_by_value():
    limit, ranked, aware = bought("frozen", 0.1)
    assert limit > 2**20
    assert 0 < ranked < 0.5 * aware < 0.5


def test_unknown_arguments_are_refused(capsys):
    assert main(["--speed"]) == 2
    assert "--speed" in capsys.readouterr().err
