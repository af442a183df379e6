"""The parts of an Excel book that an update by openpyxl would drop, or keep in part."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator, Set
from xml.etree import ElementTree

CHARTS, MACROS = "Charts", "xl/vbaProject.bin"
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


def lost_parts(archive: zipfile.ZipFile, macros: bool, titles: Set[str]) -> list[str]:
    """What openpyxl would drop, or keep in part, in a word each.

    Args:
        archive: of the book.
        macros: whether the book may hold macros.
        titles: of the charts in the sheet Charts that are drawn anew.
    """
    return sorted(set(_lost(archive, macros, titles)))


def _lost(archive: zipfile.ZipFile, macros: bool, titles: Set[str]) -> Iterator[str]:
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
