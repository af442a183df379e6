import sys

import pytest

from benchmarks.process_memory import main, measure

MBV2 = ("mbv2", 128, 32)


def needs(*case):
    """Of three processes, each measured when it is asked for; how the heap is cut up makes some 15 %."""
    return (measure(case, *MBV2) for _ in range(3))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no ru_maxrss")
def test_a_process_that_trains_a_selection_needs_less_memory():
    plain = min(needs("plain", "full", "train"))
    assert plain > 200 * 2**20
    assert any(need <= 0.20 * plain for need in needs("selective", "su1", "frozen"))
    assert any(need <= 0.40 * plain for need in needs("selective", "random:0.088", "frozen"))


def test_wrong_arguments_are_refused():
    assert main(["--network", "mbv2", "--image-size", "128", "--batch-size", "1"]) == 2


@pytest.mark.slow
def test_a_mistake_that_a_case_finds_is_one_line(capsys):
    assert main(["--network", "mbv3", "--image-size", "32", "--batch-size", "2"]) == 2
    assert "mbv3" in capsys.readouterr().err
