"""An Excel book as a file: what it may be, whether all of it survives an update, and writing it whole."""

from __future__ import annotations

import io
import os
import posixpath
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from openpyxl import Workbook, load_workbook

from neq.errors import UserError, shown
from neq.files import atomic_file

# Ending -> whether it may hold macros, whether it is a template.
FORMATS = {".xlsx": (False, False), ".xlsm": (True, False), ".xltx": (False, True), ".xltm": (True, True)}
CHARTS = "Charts"
# The parts of a book that openpyxl reads and writes again, or that Excel makes anew by itself.
KEPT = re.compile(
    r"\[Content_Types\]\.xml|_rels/\.rels|docProps/(core|app|custom)\.xml|xl/workbook\.xml|"
    r"xl/_rels/workbook\.xml\.rels|xl/(styles|sharedStrings|calcChain)\.xml|xl/theme/theme\d+\.xml|"
    r"xl/worksheets/sheet\d+\.xml|xl/worksheets/_rels/sheet\d+\.xml\.rels|xl/tables/table\d+\.xml|"
    r"xl/comments\d+\.xml|xl/comments/comment\d+\.xml|xl/drawings/(vmlDrawing|commentsDrawing)\d+\.vml|"
    r"xl/printerSettings/printerSettings\d+\.bin"
)
# Of charts and the sheet that they lie in: kept where the charts are ours, which are drawn anew.
OF_CHARTS = re.compile(
    r"xl/charts/(chart|style|colors)\d+\.xml|xl/charts/_rels/chart\d+\.xml\.rels|"
    r"xl/drawings/drawing\d+\.xml|xl/drawings/_rels/drawing\d+\.xml\.rels"
)
MACROS, TYPES = "xl/vbaProject.bin", "[Content_Types].xml"
MAIN_TYPES = {
    f"application/vnd.openxmlformats-officedocument.spreadsheetml.{kind}.main+xml": (
        f"application/vnd.ms-excel.{kind}.macroEnabled.main+xml"
    )
    for kind in ("sheet", "template")
}
CALLED = {
    "xl/media": "pictures",
    "xl/drawings": "shapes or pictures",
    "xl/diagrams": "drawings",
    "xl/embeddings": "embedded objects",
    "xl/activeX": "controls",
    "xl/ctrlProps": "controls",
    "xl/charts": "charts of other sheets",
    "xl/pivot": "pivot tables",
    "xl/externalLinks": "links to other books",
    "xl/threadedComments": "threaded comments",
    "xl/persons": "threaded comments",
    "xl/slicers": "slicers",
    "xl/queryTables": "queries",
    "xl/connections": "queries",
    "xl/vbaProject": "macros",
    "xl/macrosheets": "macros in sheets",
    "xl/chartsheets": "chart sheets",
    "customXml": "custom XML",
    "customUI": "a changed ribbon",
}
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing}"
DRAWN = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_SHEET = re.compile(r"xl/worksheets/sheet\d+\.xml")
_DRAWING = re.compile(r"xl/drawings/drawing\d+\.xml")
_CHART = re.compile(r"xl/charts/chart\d+\.xml")
# What an anchor of a chart holds.
ANCHOR = {"from", "to", "pos", "ext", "clientData", "graphicFrame"}
# Larger than any book of ours; what unpacks to more is no book.
MOST_BYTES = 2**30


class BookFile:
    """The file of a book, there already or not.

    Args:
        path: with one of the endings of FORMATS; a link is followed.

    Raises:
        UserError: another ending, no such folder, or something that is not a file.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        if path.suffix.lower() not in FORMATS:
            raise UserError(f"output {shown(self.name)} is not allowed: give one of {', '.join(FORMATS)}")
        self.path = Path(os.path.realpath(path.expanduser()))
        self.macros, self.template = FORMATS[path.suffix.lower()]
        if self.path.exists() and not self.path.is_file():
            raise UserError(f"output {shown(self.name)} is not a file; give another name")
        if not self.path.parent.is_dir():
            raise UserError(
                f"output {shown(self.name)}: the folder {shown(str(self.path.parent))} does not exist"
            )
        if self.path.exists() and not (self.path.stat().st_mode & 0o222 and os.access(self.path, os.W_OK)):
            raise UserError(f"output {shown(self.name)} is read-only; give another name, or make it writable")
        if not os.access(self.path.parent, os.W_OK):
            raise UserError(f"output {shown(self.name)}: nothing can be written in its folder")
        self._loaded: bytes | None = None
        self.check_closed()

    def check_closed(self) -> None:
        """Makes sure that no program has the book open, as far as that can be seen.

        Raises:
            UserError: Excel's or LibreOffice's lock file lies beside it.
        """
        for lock in (f"~${self.path.name}", f".~lock.{self.path.name}#"):
            if (self.path.parent / lock).exists():
                raise UserError(
                    f"output {shown(self.name)} is open in another program ({lock} lies beside it); "
                    "close it there, or remove that file when nothing has it open"
                )

    def load(self, force: bool = False) -> Workbook | None:
        """The book that is there; none where there is no file.

        Args:
            force: whether what cannot be kept may go.

        Raises:
            UserError: it is damaged, or holds what an update would drop.
        """
        if not self.path.exists():
            return None
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"output {shown(self.name)} cannot be read ({error.strerror})") from error
        self._loaded = content
        return self._book(content, force)

    def _book(self, content: bytes, force: bool) -> Workbook:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(part.file_size for part in archive.infolist()) > MOST_BYTES:
                    raise ValueError("it is too large")
                damaged = archive.testzip()
                if damaged is not None:
                    raise ValueError(f"{damaged} in it is damaged")
                book = _load(content, MACROS in archive.namelist())
                lost = sorted(set(_lost(archive, self.macros, _chart_titles(book))))
        except UserError:
            raise
        except Exception as error:  # a damaged file fails in many ways, all of them the file's
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise UserError(
                f"output {shown(self.name)} is no Excel book that can be read ({reason}); give another name"
            ) from None
        if lost and not force:
            raise UserError(
                f"output {shown(self.name)} holds what an update would drop ({', '.join(lost)}); "
                "give another name, or --force (the book as it is stays as .bak)"
            )
        return book

    def save(self, book: Workbook) -> Path | None:
        """Writes the book whole or not at all; gives the path of the former one, if there was one.

        Raises:
            UserError: it was opened or changed by another program since it was loaded, or cannot be written.
        """
        book.template = self.template
        if not self.macros:
            book.vba_archive = None
        saved = io.BytesIO()
        book.save(saved)
        content = saved.getvalue()
        if self.macros and book.vba_archive is None:
            content = _with_place_for_macros(content)
        self.check_closed()
        former = self.path.with_name(f"{self.path.name}.bak")
        try:
            if (self.path.read_bytes() if self.path.exists() else None) != self._loaded:
                raise UserError(
                    f"output {shown(self.name)} was changed by another program meanwhile; run again"
                )
            if self._loaded is not None:
                with atomic_file(former) as file:
                    file.write(self._loaded)
            with atomic_file(self.path) as file:
                file.write(content)
                if self._loaded is not None:
                    os.fchmod(file.fileno(), self.path.stat().st_mode)
        except OSError as error:
            raise UserError(f"output {shown(self.name)} cannot be written ({error.strerror})") from error
        return None if self._loaded is None else former


def _load(content: bytes, macros: bool) -> Workbook:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what openpyxl drops is told by `_lost`
        return load_workbook(io.BytesIO(content), keep_vba=macros, rich_text=True)


def _with_place_for_macros(content: bytes) -> bytes:
    """A book without macros as one that may hold some: Excel opens no .xlsm that says it is an .xlsx."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as given,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for part in given.infolist():
            data = given.read(part)
            if part.filename == TYPES:
                for plain, macros in MAIN_TYPES.items():
                    data = data.replace(plain.encode(), macros.encode())
            new.writestr(part, data)
    return made.getvalue()


def _chart_titles(book: Workbook) -> set[str]:
    """What the sheet Charts says its charts are called."""
    if CHARTS not in book.sheetnames:
        return set()
    sheet = book[CHARTS]
    return {str(cell) for row in sheet.iter_rows(values_only=True) for cell in row if isinstance(cell, str)}


def _lost(archive: zipfile.ZipFile, macros: bool, titles: set[str]) -> Iterator[str]:
    """What openpyxl would drop, or keep in part, in a word each."""
    of_charts = _parts_of(archive, CHARTS)
    for name in archive.namelist():
        if name == MACROS and not macros:
            yield "macros, which this ending cannot hold"
        if name.endswith("/") or name == MACROS or (KEPT.fullmatch(name) and not _SHEET.fullmatch(name)):
            continue
        if _SHEET.fullmatch(name):
            yield from _lost_of_sheet(ElementTree.fromstring(archive.read(name)))
        elif _DRAWING.fullmatch(name):
            yield from _lost_of_drawing(ElementTree.fromstring(archive.read(name)), name in of_charts)
        elif _CHART.fullmatch(name) and name in of_charts:
            if _title(ElementTree.fromstring(archive.read(name))) not in titles:
                yield f"a chart of yours in {CHARTS}"
        elif not (OF_CHARTS.fullmatch(name) and (name in of_charts or "/_rels/drawing" in name)):
            yield _called(name)


def _lost_of_sheet(root: ElementTree.Element) -> Iterator[str]:
    if root.find(f"{MAIN}extLst") is not None:
        yield "sparklines, slicers or newer conditional formats"
    if root.find(f"{MAIN}picture") is not None:
        yield "pictures"


def _lost_of_drawing(root: ElementTree.Element, ours: bool) -> Iterator[str]:
    """LibreOffice gives every sheet a drawing, empty where nothing is drawn."""
    kinds = {child.tag.removeprefix(DRAWING) for anchor in root for child in anchor}
    if kinds - ANCHOR:
        yield CALLED["xl/drawings"]
    if "graphicFrame" in kinds and not ours:
        yield CALLED["xl/charts"]


def _title(root: ElementTree.Element) -> str:
    title = root.find(f"{CHART}chart/{CHART}title")
    return "" if title is None else "".join(part.text or "" for part in title.iter(f"{DRAWN}t"))


def _called(name: str) -> str:
    for start, called in CALLED.items():
        if name.startswith(start):
            return called
    return name


def _parts_of(archive: zipfile.ZipFile, sheet: str) -> set[str]:
    """The drawing of a sheet, its charts and what belongs to them, by the names of their parts."""
    book = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    ids = [found.get(LINK) for found in book.iter(f"{MAIN}sheet") if found.get("name") == sheet]
    links = _links(archive, "xl/workbook.xml")
    found: set[str] = set()
    waiting = [links[number] for number in ids if number in links]
    while waiting:
        part = waiting.pop()
        inner = [name for name in _links(archive, part).values() if OF_CHARTS.fullmatch(name)]
        waiting += [name for name in inner if name not in found]
        found |= {*inner, *(_rels(name) for name in inner)}
    return found


def _rels(part: str) -> str:
    folder, name = posixpath.split(part)
    return f"{folder}/_rels/{name}.rels"


def _links(archive: zipfile.ZipFile, part: str) -> dict[str, str]:
    """What a part refers to, by the number of the reference."""
    if _rels(part) not in archive.namelist():
        return {}
    root = ElementTree.fromstring(archive.read(_rels(part)))
    folder = posixpath.dirname(part)
    return {
        str(link.get("Id")): posixpath.normpath(posixpath.join(folder, str(link.get("Target")))).lstrip("/")
        for link in root
        if link.get("TargetMode") != "External"
    }
