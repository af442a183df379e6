import re

import pytest

from benchmarks.several_processes import main
from tests.training.distributed.together import ended, start


def test_one_process_has_nobody_to_exchange_with(capsys):
    assert main([]) == 2
    assert "start it with torchrun --nproc-per-node 2" in capsys.readouterr().err


@pytest.mark.slow
def test_fewer_bytes_are_exchanged_where_less_is_chosen():
    script = "import sys; from benchmarks.several_processes import main; sys.exit(main(sys.argv[1:]))"
    flags = ["--image-size", "32", "--batch-size", "4", "--rounds", "1"]
    (code, shown, error), second = ended(start(2, script, *flags, COLUMNS="120"))
    assert code == second[0] == 0, error
    megabytes = [float(line) for line in re.findall(r"([\d.]+) │$", shown, re.M)]
    full, full_apart, spread_train, spread_apart, spread, su = megabytes
    assert (full, spread_train) == (full_apart, spread_apart)
    assert full > 8.9  # 2.2 million parameters
    assert 0.6 < su < 1.0
    assert 0.7 < spread < 0.9 < spread_train < 0.2 * full
