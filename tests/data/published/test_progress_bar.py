"""The progress bar of a step."""

import io

import pytest
from rich.console import Console

from neq.data.published.progress_bar import progress_bar


@pytest.mark.parametrize("unit", ["bytes", "images"])
def test_without_a_terminal_the_step_is_named_once(unit):
    out = io.StringIO()
    with progress_bar(Console(file=out), "unpacking [x].tgz", 10, unit) as advance:
        advance(4)
        advance(6)
    assert out.getvalue() == "unpacking [x].tgz\n"


def test_on_a_terminal_the_bar_counts():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with progress_bar(console, "copying", 10, "images", start=3) as advance:
        advance(4)
    assert "copying" in out.getvalue()
    assert "7/10" in out.getvalue()
