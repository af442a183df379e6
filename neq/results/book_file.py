"""An Excel book as a file: read, checked for what rewriting it would lose, and replaced atomically."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from openpyxl import Workbook, load_workbook

from neq.utils.atomic_files import atomic_file
from neq.utils.errors import UserError, first_line, shown

# Larger than any book of ours; what unpacks to more is no book.
MOST_BYTES = 2**28
# The parts of a book that openpyxl reads and writes again, or that a program makes anew.
KEPT = re.compile(
    r"\[Content_Types\]\.xml|(.*/)?_rels/[^/]*\.rels|docProps/\w+\.xml|(xl/.*)?/|"
    r"xl/(workbook|styles|sharedStrings|calcChain|comments\d+)\.xml|xl/charts/(chart|style|colors)\d+\.xml|"
    r"xl/worksheets/sheet\d+\.xml|xl/(theme|tables|comments|drawings|media|printerSettings)/.*"
)
SHAPE = re.compile(rb"<(\w+:)?(sp|cxnSp|grpSp|contentPart)[ />]")
EXTENSION = re.compile(rb"<(\w+:)?extLst[ />]")


class BookFile:
    """The file of a book, which may exist.

    Args:
        path: ends in .xlsx; a link is followed.

    Raises:
        UserError: another suffix, a folder that does not exist, or a file that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"output {shown(str(path))}"
        if path.suffix.lower() != ".xlsx":
            raise UserError(f"{self.name} is not allowed: give a name that ends in .xlsx")
        self.path = Path(os.path.realpath(path.expanduser()))
        if self.path.exists() and not self.path.is_file():
            raise UserError(f"{self.name} is not a file; give another name")
        if not self.path.parent.is_dir():
            raise UserError(f"{self.name}: the folder {shown(str(self.path.parent))} does not exist")
        if self.path.exists() and not (self.path.stat().st_mode & 0o222 and os.access(self.path, os.W_OK)):
            raise UserError(f"{self.name} is read-only; give another name, or make it writable")
        if not os.access(self.path.parent, os.W_OK):
            raise UserError(f"{self.name}: its folder is not writable")
        self._loaded: bytes | None = None
        self.check_closed()

    def check_closed(self) -> None:
        """Raises if another program has the book open, as far as its lock file shows.

        Raises:
            UserError: Excel's or LibreOffice's lock file lies beside the book.
        """
        for lock in (f"~${self.path.name}", f".~lock.{self.path.name}#"):
            if (self.path.parent / lock).exists():
                raise UserError(
                    f"{self.name} is open in another program ({lock} lies beside it); "
                    "close it there, or remove that file when nothing has it open"
                )

    def load(self) -> tuple[Workbook, list[str]] | None:
        """The book that exists, and what of it openpyxl would not write again; none without a file.

        Raises:
            UserError: it is damaged.
        """
        if not self.path.exists():
            return None
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.name} cannot be read ({error.strerror})") from error
        self._loaded = content
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # openpyxl's about what it drops, which `_dropped` finds
                if sum(part.file_size for part in archive.infolist()) > MOST_BYTES:
                    raise ValueError("it is too large")
                damaged = archive.testzip()
                if damaged is not None:
                    raise ValueError(f"{damaged} in it is damaged")
                return load_workbook(io.BytesIO(content), rich_text=True), sorted(set(_dropped(archive)))
        except Exception as error:  # a damaged file fails in many ways, all of them the file's
            raise UserError(
                f"{self.name} is no Excel book that can be read ({first_line(error)}); give another name"
            ) from None

    def save(self, book: Workbook) -> Path | None:
        """Writes the book whole or not at all.

        Returns:
            The path of the earlier book, NAME.bak; none if there was no book.

        Raises:
            UserError: it was opened or changed by another program since it was loaded, or cannot be written.
        """
        saved = io.BytesIO()
        book.save(saved)
        self.check_closed()
        earlier = self.path.with_name(f"{self.path.name}.bak")
        try:
            if (self.path.read_bytes() if self.path.exists() else None) != self._loaded:
                raise UserError(f"{self.name} was changed by another program meanwhile; run again")
            if self._loaded is not None:
                with atomic_file(earlier) as file:
                    file.write(self._loaded)
            with atomic_file(self.path) as file:
                file.write(saved.getvalue())
                if self._loaded is not None:
                    os.fchmod(file.fileno(), self.path.stat().st_mode)
        except OSError as error:
            raise UserError(f"{self.name} cannot be written ({error.strerror})") from error
        return None if self._loaded is None else earlier


def _dropped(archive: zipfile.ZipFile) -> Iterator[str]:
    """What a book holds that openpyxl would not write again."""
    for name in archive.namelist():
        if name.startswith("xl/worksheets/sheet") and EXTENSION.search(archive.read(name)):
            yield "sparklines, slicers or newer conditional formats"
        elif name.startswith("xl/drawings/drawing") and SHAPE.search(archive.read(name)):
            yield "shapes"
        elif not KEPT.fullmatch(name):
            yield name
