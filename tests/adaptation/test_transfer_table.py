"""The sheet of transfers: our figures by method and transfer, with published rows below."""

from pathlib import Path

import openpyxl
import pytest

from neq.adaptation.transfer_table import TITLE, published_transfers, transfers
from neq.config import PRE_TRAINED
from neq.results import groups, runs
from neq.results.book import write_book
from neq.sweeps import cells, read_sweep
from neq.wings.adaptation import METHODS, PREFIX
from tests.results.run_folders import write_run

POLICIES = Path(__file__).resolve().parents[2] / "policies/adaptation"
OFFICE = sorted(POLICIES.glob("office31_*.yaml"))
DIGITS = sorted(POLICIES.glob("digits_*.yaml"))


def table_of(folder, files, wanted=lambda config: True):
    """The table of the runs of some cells, whose top-1 grows with the number of the method."""
    numbers = {PREFIX + name: number for number, name in enumerate(METHODS)}
    for file in files:
        for cell in cells(read_sweep(file)):
            if wanted(cell.config):
                config = cell.config
                write_run(folder / "runs", config, test_top1=50.0 + numbers[config.objective])
    return runs(files, folder / "runs")


def test_a_row_is_a_method_and_its_average_needs_every_transfer(tmp_path):
    both = table_of(
        tmp_path,
        DIGITS,
        lambda config: (config.objective, config.data_provider.dataset) != ("adapt_mdd", "usps"),
    )
    table = transfers(groups(both)).set_index("Method")
    names = list(METHODS)
    assert table.loc["mcc", ["mnist-usps", "usps-mnist", "Average"]].tolist() == [50.0] * 3
    assert table.loc["coral", "Average"] == 50.0 + names.index("coral")
    assert table.loc["mdd", "mnist-usps"] == 50.0 + names.index("mdd")
    assert table.loc["mdd", ["usps-mnist", "Average"]].isna().all()
    assert "adapt_statistics True" in table.loc["mcc", "Settings"]
    assert set(table["Source"]) == {"neq, test split"}  # nothing is published of these transfers


def test_published_rows_stand_below_in_the_book(tmp_path):
    path = tmp_path / "book.xlsx"
    write_book(path, table_of(tmp_path, OFFICE[:2], lambda config: config.objective == "adapt_mcc"))
    head, *rows = openpyxl.load_workbook(path)[TITLE].iter_rows(values_only=True)
    assert head[:3] == ("Method", "amazon-dslr", "amazon-webcam")
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert (found["mcc"]["amazon-dslr"], found["mcc"]["Average"]) == (50.0, 50.0)
    assert (found["CDAN"]["amazon-webcam"], found["CDAN"]["Average"]) == (77.9, 77.0)
    assert found["MCC, ResNet-50 of TLlib"]["Average"] == 89.6
    assert list(found)[-1] != "mcc"


def test_a_book_without_adaptations_has_no_such_sheet(tmp_path):
    path = tmp_path / "book.xlsx"
    write_book(path, runs([POLICIES.parent / "digits/su.yaml"], tmp_path / "runs"))
    assert TITLE not in openpyxl.load_workbook(path).sheetnames


@pytest.mark.parametrize(("method", "mean"), [("CDAN", 77.0), ("DANN", 74.3), ("D-CORAL", 71.3)])
def test_published_averages(method, mean):
    row = published_transfers()[method]
    assert sum(row.top1.values()) / 6 == pytest.approx(mean, abs=0.06)
    assert (row.average == pytest.approx(mean, abs=0.11)) == (method != "D-CORAL")


def test_there_is_a_policy_for_every_transfer():
    found = {cell.config.adaptation.transfer for file in OFFICE for cell in cells(read_sweep(file))}
    assert found == set(published_transfers()["JAN"].top1)
    assert len(list(POLICIES.glob("pacs_*.yaml"))) == 12
    for file in POLICIES.glob("*.yaml"):
        configs = [cell.config for cell in cells(read_sweep(file))]
        assert {config.manual_seed for config in configs} == {0, 42, 100}
        assert {"adapt_source", "adapt_mcc", "adapt_labelled"} <= {config.objective for config in configs}
        assert all(config.data_provider.root != config.adaptation.target_root or "digits" in file.name
                   for config in configs)  # fmt: skip
        if "digits" not in file.name:
            assert all(config.net_config.net_name.startswith(PRE_TRAINED) for config in configs)
