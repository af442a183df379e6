import sys

import pytest

from benchmarks.process_memory import main, measure

MBV2 = ("mbv2", 128, 32)


def least(*case):
    """Of three processes: each cuts the heap up in a way of its own, by some 15 %."""
    return min(measure(case, *MBV2) for _ in range(3))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no ru_maxrss")
def test_a_process_that_trains_a_selection_needs_less_memory():
    plain = least("plain", "full", "train")
    assert plain > 200 * 2**20
    assert least("selective", "su1", "frozen") <= 0.20 * plain
    assert least("selective", "random:0.088", "frozen") <= 0.40 * plain


def test_wrong_arguments_are_refused(capsys):
    assert main(["--network", "mbv2", "--image-size", "128", "--batch-size", "1"]) == 2
    assert main(["--network", "mbv3", "--image-size", "32", "--batch-size", "2"]) == 2
    assert "mbv3" in capsys.readouterr().err
