"""The tables of a report as a book."""

import io

import openpyxl

from neq.results.report.sheets import book


def test_every_table_has_its_sheet(reports):
    found = openpyxl.load_workbook(io.BytesIO(book(reports)))
    assert found.sheetnames == ["Summary", "Classes", "Confused", "Speed"]
    header, *rows = found["Classes"].iter_rows(values_only=True)
    assert header == ("run", "class", "images", "precision", "recall", "f1")
    assert len(rows) == 20
    assert rows[0][0] == "first"
    assert rows[0][3] == reports[0].quality.classes["precision"][0]
    header, *rows = found["Summary"].iter_rows(values_only=True)
    values = {row[1]: row[2:] for row in rows}
    assert values["parameters"] == (558_770, 558_770)
    header, *rows = found["Speed"].iter_rows(values_only=True)
    assert len(rows) == 6
    assert dict(zip(header, rows[2], strict=True))["chosen int8"] == "yes"
