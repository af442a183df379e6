import json

import pytest

from benchmarks.compression import METHODS, main
from benchmarks.compression_table import table
from benchmarks.transfer_report import Report
from neq.compression import compress, read_start
from neq.compression.make import inputs_of
from neq.compression.run_images import open_images
from neq.results.best_network import load_best
from tests.benchmarks.pages import ROOT, table_of

pytest.importorskip("torch_pruning", reason="the extra compression is not installed")
pytest.importorskip("tensorly", reason="the extra compression is not installed")


@pytest.mark.slow
def test_a_method_is_measured_once_and_continues(tiny_run, tmp_path, capsys):
    output = tmp_path / "out.json"
    command = [str(tiny_run), "--methods", "50 % zeros", "--output", str(output)]
    assert main(command) == 0
    content = json.loads(output.read_text())
    (row,) = content["runs"]
    before, after = row["sizes"]
    assert after["packed_bytes"] < before["packed_bytes"]
    assert after["parameters"] == before["parameters"]
    assert 0 <= row["fine_tuned"] <= 100
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == []
    assert main(command) == 0
    assert json.loads(output.read_text()) == content
    capsys.readouterr()
    assert main(["--table", "--output", str(output)]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("| 50 % zeros")]
    assert line.split("|")[2:4] == [" 1.00 ", " 1.00 "]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if "50 %" in name])
def test_methods_are_what_they_are_called(tiny_run, name):
    best = load_best(tiny_run)
    with open_images(best) as images:
        made = compress(read_start(best), METHODS[name], inputs_of(best, images))
    names = [each.name for each in made.recipe.transforms]
    expected = {"prune": "widths", "low_rank": "low_rank", "sparsify": "sparse"}
    assert names == [expected[step] for step in METHODS[name]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no run is named"),
        (["x", "--methods", "prune"], "'prune' is unknown"),
        (["x", "--part", "0"], "0"),
    ],
)
def test_mistakes_are_one_line(arguments, reason, capsys):
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err


def test_the_page_holds_the_table_of_the_results():
    assert table_of("docs/compression.md") == table(Report(ROOT / "benchmarks/compression.json"))
