"""Unpacking of the needed parts of an archive: complete or not at all, and only into the raw folder."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rich.console import Console

from neq.data.published.progress_bar import progress_bar
from neq.utils.errors import UserError, first_line, shown

# What the system reports for member names that clash, or that no file can have.
_NAME_ERRORS = (
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY),
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT),
)


def unpack(archive: Path, wanted: Sequence[str], raw: Path, console: Console) -> None:
    """Unpack the folders and files of an archive that the raw folder lacks.

    Each appears under its name only when it is complete. Only regular files are unpacked: links and devices
    are never created.

    Args:
        archive: a zip, a tar however compressed, or one gzipped file; the suffix matters for the last alone.
        wanted: folders and files in the archive, with slashes; each gets the same path in `raw`.
        raw: the folder to unpack into.
        console: shows the progress.

    Raises:
        UserError: the archive is damaged, lacks something, or has a name that leads out of `raw`.
    """
    missing = [name for name in wanted if not (raw / name).exists()]
    partial = raw / f".{archive.name}.unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        try:
            _extract(archive, missing, partial, console)
        except UserError:
            raise
        except Exception as error:  # a damaged archive raises nearly anything
            if isinstance(error, OSError) and error.errno not in (None, *_NAME_ERRORS):
                raise  # an error of the disk; a damaged stream has no error number
            raise UserError(
                f"archive {str(archive)!r} is damaged ({shown(first_line(error))}); delete it and run again "
                "to download it"
            ) from error
        for name in missing:
            if not (partial / name).exists():
                raise UserError(
                    f"archive {str(archive)!r} has no {name!r}; it is not the published one; delete it and "
                    "run again to download it"
                )
        for name in missing:
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / name, raw / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(archive: Path, wanted: Sequence[str], partial: Path, console: Console) -> None:
    if [f"{name}.gz" for name in wanted] == [archive.name]:
        with gzip.open(archive) as packed, (partial / wanted[0]).open("wb") as file:
            shutil.copyfileobj(packed, file)
        return
    extract = _extract_zip if zipfile.is_zipfile(archive) else _extract_tar
    extract(archive, [PurePosixPath(name) for name in wanted], partial, console)


def _extract_tar(archive: Path, wanted: list[PurePosixPath], partial: Path, console: Console) -> None:
    size = archive.stat().st_size
    with (
        archive.open("rb") as file,
        progress_bar(console, f"unpacking {archive.name}", size, "bytes") as advance,
    ):
        position = 0
        # Not as a stream (r|*), which accepts a compressed archive that ends too early.
        with tarfile.open(fileobj=file, mode="r:*") as tar:
            for member in tar:
                if _is_wanted(member.name, wanted, archive) and member.isreg():
                    tar.extract(member, partial, filter="data")
                advance(file.tell() - position)
                position = file.tell()
            assert tar.fileobj is not None
            while tar.fileobj.read(1 << 20):
                pass  # up to the checksum of the compressed data


def _extract_zip(archive: Path, wanted: list[PurePosixPath], partial: Path, console: Console) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = [info for info in zipped.infolist() if _is_wanted(info.filename, wanted, archive)]
        members = [info for info in members if not info.is_dir() and not _is_special(info)]
        total = sum(info.file_size for info in members)
        with progress_bar(console, f"unpacking {archive.name}", total, "bytes") as advance:
            for info in members:
                zipped.extract(info, partial)
                advance(info.file_size)


def _is_wanted(name: str, wanted: list[PurePosixPath], archive: Path) -> bool:
    """Whether a member is among what is wanted; a name that leads out of the folder raises UserError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"archive {str(archive)!r} holds {shown(name)}, which leads out of the folder; it is not the "
            "published one; delete it and run again to download it"
        )
    if path.name.startswith("._"):
        return False  # metadata of macOS
    return any(path == folder or folder in path.parents for folder in wanted)


def _is_special(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a link or a device; writers that know no file types leave 0."""
    return stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG)
