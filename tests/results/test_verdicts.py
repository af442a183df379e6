import pytest

from neq.results.verdicts import Check


@pytest.mark.parametrize(
    ("check", "differs", "verdict"),
    [
        (Check(90.0, 90.0), False, "as recorded"),
        (Check(90.0, 90.0 + 1e-9), False, "as recorded"),
        (Check(90.0, 90.1), True, "differs"),
        (
            Check(90.0, 90.1, "recorded on cuda, measured on cpu"),
            True,
            "differs (recorded on cuda, measured on cpu)",
        ),
        (Check(90.0, None), True, "differs"),
        (Check(None, 90.0, "it is gone"), False, "not measured: it is gone"),
    ],
)
def test_a_figure_that_differs_is_marked(check, differs, verdict):
    assert (check.differs, check.verdict) == (differs, verdict)


def test_the_difference_is_measured_less_recorded():
    assert Check(88.0, 90.0).difference == -2
    assert Check(None, 90.0).difference is None
    assert Check(88.0, None).difference is None
