"""An Excel book as a file: what it may be, whether all of it survives an update, and writing it whole."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path

from openpyxl import Workbook, load_workbook

from neq.results.book_parts import CHARTS, MACROS, lost_parts
from neq.results.sheet import filled
from neq.utils.atomic_files import atomic_file
from neq.utils.errors import UserError, first_line, shown

# Ending -> whether it may hold macros, whether it is a template.
FORMATS = {".xlsx": (False, False), ".xlsm": (True, False), ".xltx": (False, True), ".xltm": (True, True)}
TYPES = "[Content_Types].xml"
MAIN_TYPES = {
    f"application/vnd.openxmlformats-officedocument.spreadsheetml.{kind}.main+xml": (
        f"application/vnd.ms-excel.{kind}.macroEnabled.main+xml"
    )
    for kind in ("sheet", "template")
}
# Larger than any book of ours; what unpacks to more is no book.
MOST_BYTES = 2**28


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
                lost = lost_parts(archive, self.macros, _chart_titles(book))
        except UserError:
            raise
        except Exception as error:  # a damaged file fails in many ways, all of them the file's
            reason = first_line(error)
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
        warnings.simplefilter("ignore")  # what openpyxl drops is told by `lost_parts`
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
    return {str(cell.value) for cell in filled(sheet) if isinstance(cell.value, str)}
