import json

import pytest

from benchmarks.common import run_benchmark
from benchmarks.velocity import main


@pytest.mark.slow
def test_both_ways_select_the_same_and_only_one_grows(tmp_path, capsys):
    output = tmp_path / "out.json"
    assert (
        run_benchmark(main, f"--network mcunet-in0 --image-size 32 --images 2,8 --output {output}".split())
        == 0
    )
    few, many = json.loads(output.read_text())["reports"]
    for report in (few, many):
        assert report["same_selection"]
        assert report["largest_difference"] < 1e-12
        assert report["two_networks"]["seconds"] > 0
    assert many["stored_outputs_bytes"] == 4 * few["stored_outputs_bytes"]
    assert many["storing"]["peak_bytes"] > 2 * few["storing"]["peak_bytes"]
    assert many["two_networks"]["peak_bytes"] < 1.2 * few["two_networks"]["peak_bytes"]
    assert "two networks" in capsys.readouterr().out


@pytest.mark.parametrize("images", ["0", "ten", "10,-1", ""])
def test_bad_arguments_are_one_line(images, capsys):
    assert run_benchmark(main, ["--images", images]) == 2
    assert capsys.readouterr().err.count("\n") == 1
