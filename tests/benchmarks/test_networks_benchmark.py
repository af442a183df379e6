import json
from pathlib import Path

import pytest

import benchmarks.networks
from benchmarks.networks import NETWORKS, Report, main
from benchmarks.networks_table import CELLS, tables

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"image_size": 64, "batch_size": 8, "rounds": 3}


def entry(name, fused=3):
    cells = [
        {"norm": norm, "selection": selection, "saved_ratio": 0.25, "saved_bytes": 100, "time_ratio": 0.5}
        for norm, selection in CELLS
    ]
    for cell in cells[1:]:
        cell |= {"predicted_bytes": 100, "gradient_error": 1e-13}
    machine = {"cpu": "AMD", "torch": "2.15"}
    return {"network": name, "norms": 4, "fused": fused, "cells": cells, "machine": machine}


def test_an_interrupted_benchmark_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    path, asked = tmp_path / "n.json", []

    def measure(name, **settings):
        assert settings == SETTINGS
        asked.append(name)
        if name == "timm:b" and len(asked) == 2:
            raise RuntimeError("no memory")
        return entry(name)

    monkeypatch.setattr(benchmarks.networks, "measure", measure)
    arguments = ["--output", str(path), "--networks", "timm:a,timm:b,timm:c"]
    assert main(arguments) == 0
    assert capsys.readouterr().err == "timm:b: RuntimeError: no memory\n"
    assert main(arguments) == 0
    assert asked == ["timm:a", "timm:b", "timm:c", "timm:b"]
    assert [network["network"] for network in Report(path, SETTINGS).networks] == [
        "timm:a",
        "timm:c",
        "timm:b",
    ]


@pytest.mark.parametrize("text", ["[]", json.dumps({"settings": {"rounds": 9}, "networks": []})])
def test_figures_of_another_kind_are_refused(text, tmp_path, capsys):
    (tmp_path / "n.json").write_text(text)
    assert main(["--output", str(tmp_path / "n.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_table_names_what_is_traced_and_exact():
    text = tables([entry("timm:a"), entry("timm:b", fused=None)])
    assert "| timm:a | 3 of 4 | 0.250 / 0.50 |" in text
    assert "| timm:b | layer by layer |" in text
    assert "1.0e-13; bytes predicted exactly: 4 of 4" in text


@pytest.mark.slow
def test_a_networks_figures(monkeypatch):
    figures = benchmarks.networks.measure("timm:lcnet_050", 32, 2, 1)
    assert figures["norms"] == figures["fused"] == 27
    for cell in figures["cells"]:
        assert 0 < cell["saved_ratio"] < 1
        assert cell.get("gradient_error", 0) < 1e-10
        assert cell.get("predicted_bytes", cell["saved_bytes"]) == cell["saved_bytes"]


def test_the_page_holds_exactly_what_was_measured():
    report = Report(ROOT / "benchmarks/networks.json", SETTINGS)
    page = (ROOT / "docs/networks.md").read_text()
    between = page.partition("<!-- table -->\n")[2].partition("<!-- end of table -->")[0]
    assert between.strip() == tables(report.networks)
    assert len(report.networks) >= 30
    assert {network["network"] for network in report.networks} <= set(NETWORKS)


def test_no_network_keeps_more_than_full_training():
    report = Report(ROOT / "benchmarks/networks.json", SETTINGS)
    assert max(cell["saved_ratio"] for network in report.networks for cell in network["cells"]) <= 1
