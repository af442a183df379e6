import json

import pytest
import torch

from benchmarks import automatic
from benchmarks.prefix import main, on_maps, table
from benchmarks.selections import chooser
from benchmarks.training_step import Settings, make_task
from benchmarks.variants import selective
from tests.benchmarks.pages import ROOT, refusal, table_of

TINY = ["--network=mcunet-in0", "--image-size=32", "--batch-size=4", "--rounds=2"]


@pytest.mark.slow
def test_the_step_on_maps_keeps_less_and_its_report_has_every_variant(tmp_path, capsys):
    output = tmp_path / "out.json"
    assert main([*TINY, "--selection=late:0.2", f"--output={output}"]) == 0
    report = json.loads(output.read_text())
    variants = report["variants"]
    assert list(variants) == ["plain", "channels_last", "selective", "prefix"]
    assert 0 < variants["prefix"]["saved_ratio"] <= variants["selective"]["saved_ratio"] < 1
    assert report["map_bytes"] > 0
    capsys.readouterr()
    assert main(["--table", f"--output={output}"]) == 0
    assert capsys.readouterr().out.strip() == table(report)


def test_gradients_on_maps_are_those_of_the_whole_plan():
    settings = Settings("mcunet-in0", 32, 4, "frozen", "late:0.2", variants=("plain",))
    task = make_task(settings, chooser(settings.selection, settings.network), torch.device("cpu"))
    found = []
    for variant in (selective(task), on_maps(task)[0]):
        variant.loss().backward()
        groups = variant.optimizer.param_groups
        found.append([each.grad.clone() for group in groups for each in group["params"]])
    assert found[0]
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_mistakes_are_one_line(tmp_path, capsys):
    assert "choose later layers" in refusal(main, [*TINY, "--selection=full"], capsys)
    assert "which is not there" in refusal(main, ["--table"], capsys)


def test_the_page_holds_the_table_of_the_report():
    report = json.loads((ROOT / "benchmarks/prefix.json").read_text())
    assert table_of("docs/prefix_cache.md") == table(report)


def test_the_page_holds_the_table_of_views(capsys):
    assert automatic.main(["--table", "--output", str(ROOT / "benchmarks/prefix_views.json")]) == 0
    text = (ROOT / "docs/prefix_cache.md").read_text()
    held = text.partition("<!-- views -->\n")[2].partition("<!-- end of views -->")[0]
    assert held.strip() == capsys.readouterr().out.strip()
