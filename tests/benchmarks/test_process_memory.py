import sys

import pytest

from benchmarks.process_memory import main, measure

MBV2 = ("mbv2", 128, 32)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no ru_maxrss")
def test_a_process_that_trains_a_selection_needs_less_memory():
    plain = measure(("plain", "full", "train"), *MBV2)
    assert plain > 200 * 2**20
    assert measure(("selective", "su1", "frozen"), *MBV2) <= 0.20 * plain
    assert measure(("selective", "random:0.088", "frozen"), *MBV2) <= 0.40 * plain


def test_wrong_arguments_are_refused(capsys):
    assert main(["--network", "mbv2", "--image-size", "128", "--batch-size", "1"]) == 2
    assert main(["--network", "mbv3", "--image-size", "32", "--batch-size", "2"]) == 2
    assert "mbv3" in capsys.readouterr().err
