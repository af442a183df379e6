"""`python -m benchmarks.partition_devices`."""

import json

import pytest

from benchmarks import partition_devices
from benchmarks.partition_devices_table import tables
from neq.partition.device_profile import LinkProfile
from tests.benchmarks.pages import ROOT, refusal, table_of


def test_the_page_holds_the_tables_of_the_recorded_figures():
    found = json.loads((ROOT / "benchmarks/partition_devices.json").read_text())
    assert table_of("docs/partition_devices.md") == tables(found)
    assert all(pair["bit_equal"] for pair in found["pairs"])


def test_figures_that_are_missing_are_no_numbers():
    found = json.loads((ROOT / "benchmarks/partition_devices.json").read_text())
    pair = {**found["pairs"][0], "two_devices": None, "one_process_ms": None, "calm_images": 0}
    line = next(each for each in tables({**found, "pairs": [pair]}).splitlines() if "of 12" in each)
    assert line.split("|")[2:4] == [" - ", " - "]


@pytest.mark.slow
def test_a_pair_is_measured(tmp_path, monkeypatch, capsys):
    link = LinkProfile(0.25, 1e6, ((4, 0.25),), "loopback")
    names = ("fbnet_c", "syncnas_fbnet_c_100")
    monkeypatch.setattr(partition_devices, "PUBLISHED", names)
    monkeypatch.setattr(partition_devices, "BASES", names[:1])
    monkeypatch.setattr(partition_devices, "measure_loopback", lambda timeout, repeats: link)
    output = tmp_path / "found.json"
    flags = ["--image-size=32", "--repeats=1", "--images=2", "--allow-busy"]
    assert partition_devices.main([f"--output={output}", *flags]) == 0
    found = json.loads(output.read_text())
    assert [each["network"] for each in found["sums"]] == list(names)
    (pair,) = found["pairs"]
    assert pair["bit_equal"]
    assert pair["images"] == 3
    assert pair["predicted_ms"] > 0
    assert [each.name for each in tmp_path.iterdir()] == ["found.json"]
    out = capsys.readouterr().out
    assert partition_devices.main([f"--output={output}", "--table"]) == 0
    assert capsys.readouterr().out == out


def test_a_file_in_no_folder_is_refused(tmp_path, capsys):
    error = refusal(partition_devices.main, ["--output", str(tmp_path / "no" / "found.json")], capsys)
    assert error.startswith("error: output ")
