import os
import zipfile

import openpyxl
import pytest

from neq.results import book_file
from neq.results import runs as runs_of
from neq.results.book import check_book, write_book
from neq.results.book_file import BookFile
from neq.utils.errors import UserError
from tests.results.run_folders import configs, sweep_file, write_run


@pytest.fixture
def runs(tmp_path):
    file = sweep_file(tmp_path / "sweep.yaml", "manual_seed: {values: [0, 1]}")
    for config in configs(file):
        write_run(tmp_path / "runs", config)
    return runs_of([file], tmp_path / "runs")


@pytest.fixture
def book(tmp_path, runs):
    path = tmp_path / "output.xlsx"
    write_book(path, runs)
    return path


def with_parts(path, parts, types=""):
    """Puts parts into a book, and names of their types."""
    with zipfile.ZipFile(path) as archive:
        content = {part.filename: archive.read(part) for part in archive.infolist()}
    content |= parts
    content["[Content_Types].xml"] = content["[Content_Types].xml"].replace(
        b"</Types>", types.encode() + b"</Types>"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    "name", ["output.csv", "output", "output.xls", "output.xlsm", "output.ods", ".xlsx.txt"]
)
def test_another_ending_is_refused(tmp_path, runs, name):
    with pytest.raises(UserError, match=r"give a name that ends in \.xlsx"):
        write_book(tmp_path / name, runs)
    assert not (tmp_path / name).exists()


def test_a_folder_a_missing_folder_and_a_place_that_cannot_be_written_are_refused(tmp_path, runs):
    (tmp_path / "folder.xlsx").mkdir()
    with pytest.raises(UserError, match="is not a file"):
        write_book(tmp_path / "folder.xlsx", runs)
    with pytest.raises(UserError, match=r"the folder .*nowhere' does not exist"):
        write_book(tmp_path / "nowhere/output.xlsx", runs)
    assert not (tmp_path / "nowhere").exists()


def test_a_read_only_book_is_refused_and_untouched(book, runs):
    before = book.read_bytes()
    book.chmod(0o444)
    with pytest.raises(UserError, match="is read-only"):
        write_book(book, runs, force=True)
    assert book.read_bytes() == before
    book.chmod(0o640)
    write_book(book, runs)
    assert book.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("lock", ["~$output.xlsx", ".~lock.output.xlsx#"])
def test_a_book_that_is_open_elsewhere_is_refused_and_untouched(book, runs, lock):
    before = book.read_bytes()
    (book.parent / lock).touch()
    with pytest.raises(UserError, match="is open in another program"):
        write_book(book, runs, force=True)
    assert book.read_bytes() == before


def test_a_book_that_is_opened_meanwhile_is_untouched(book):
    file = BookFile(book)
    (loaded, _), before = file.load(), book.read_bytes()
    (book.parent / "~$output.xlsx").touch()
    with pytest.raises(UserError, match="is open in another program"):
        file.save(loaded)
    assert book.read_bytes() == before


@pytest.mark.parametrize("there", [True, False])
def test_a_book_that_is_changed_meanwhile_is_untouched(book, there):
    content = book.read_bytes()
    if not there:
        book.unlink()
    file = BookFile(book)
    loaded, _ = file.load() or (openpyxl.Workbook(), [])
    book.write_bytes(content + b" ")
    with pytest.raises(UserError, match="was changed by another program meanwhile"):
        file.save(loaded)
    assert book.read_bytes() == content + b" "


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty", "zip", "encrypted"])
def test_a_damaged_book_is_one_line_and_untouched(book, runs, damage):
    content = book.read_bytes()
    if damage == "zip":
        with zipfile.ZipFile(book, "w") as archive:
            archive.writestr("a.txt", "text")
        content = book.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "flipped": content[:400] + bytes(64) + content[464:],
        "text": b"Model,Scheme\n",
        "empty": b"",
        "zip": content,
        "encrypted": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500),
    }[damage]
    book.write_bytes(broken)
    with pytest.raises(UserError, match="no Excel book that can be read") as error:
        write_book(book, runs, force=True)
    assert "\n" not in str(error.value)
    assert book.read_bytes() == broken


@pytest.mark.parametrize(
    "part",
    [
        "xl/embeddings/oleObject1.bin", "xl/ctrlProps/ctrlProp1.xml", "xl/activeX/activeX1.xml",
        "xl/pivotTables/pivotTable1.xml", "xl/threadedComments/threadedComment1.xml",
        "xl/slicers/slicer1.xml", "xl/externalLinks/externalLink1.xml", "customXml/item1.xml",
        "docMetadata/LabelInfo.xml", "xl/vbaProject.bin", "xl/charts/chartEx1.xml",
    ],
)  # fmt: skip
def test_what_would_be_lost_is_named(book, part):
    with_parts(book, {part: b"<a/>"})
    before = book.read_bytes()
    with pytest.raises(UserError) as error:
        check_book(book)
    assert f"holds what would be lost when it is written anew ({part});" in str(error.value)
    assert book.read_bytes() == before


def test_shapes_among_our_charts_and_newer_formats_of_a_sheet_are_seen(book):
    with zipfile.ZipFile(book) as archive:
        drawing = archive.read("xl/drawings/drawing1.xml")
        sheet = archive.read("xl/worksheets/sheet1.xml")
    shape = drawing.replace(b"</xdr:graphicFrame>", b"</xdr:graphicFrame><xdr:sp/>")
    shape = shape if shape != drawing else drawing.replace(b"</graphicFrame>", b"</graphicFrame><sp/>")
    assert shape != drawing
    with_parts(book, {"xl/drawings/drawing1.xml": shape})
    with pytest.raises(UserError, match=r"would be lost when it is written anew \(shapes, "):
        check_book(book)
    newer = sheet.replace(b"</worksheet>", b'<extLst><ext uri="{1}"/></extLst></worksheet>')
    with_parts(book, {"xl/drawings/drawing1.xml": drawing, "xl/worksheets/sheet1.xml": newer})
    with pytest.raises(UserError, match="sparklines, slicers or newer conditional formats"):
        check_book(book)


def test_an_empty_drawing_as_libreoffice_writes_them_is_nothing(book):
    empty = b'<xdr:wsDr xmlns:xdr="http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing"></xdr:wsDr>'
    with_parts(book, {"xl/drawings/drawing7.xml": empty})
    check_book(book)


def test_a_disk_that_is_full_leaves_the_book_as_it_was(book, runs, monkeypatch):
    before = book.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        write_book(book, runs)
    assert book.read_bytes() == before
    assert [file.name for file in book.parent.iterdir() if file.name.endswith(".tmp")] == []


def test_a_link_to_a_book_stays_a_link(book, runs, tmp_path):
    link = tmp_path / "folder"
    link.mkdir()
    (link / "link.xlsx").symlink_to(book)
    assert write_book(link / "link.xlsx", runs).new == 0
    assert (link / "link.xlsx").is_symlink()
    assert (tmp_path / "output.xlsx.bak").exists()


def test_a_book_that_unpacks_to_too_much_is_refused(book, runs, monkeypatch):
    monkeypatch.setattr(book_file, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="it is too large"):
        write_book(book, runs)
