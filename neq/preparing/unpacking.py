"""Unpacking what is needed of an archive: whole or not at all, and nowhere but into the raw folder."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from rich.console import Console

from neq.preparing.progress import bar
from neq.utils.errors import UserError, shown

# What a disk answers to names that clash with one another, or that none can have.
_BY_NAMES = (
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY),
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT),
)


def unpack(archive: Path, wanted: tuple[str, ...], raw: Path, console: Console) -> None:
    """Unpacks folders and files of an archive that the raw folder does not have yet.

    Each appears under its name only when it is whole. Only plain files are taken: a link or a device is
    never made.

    Args:
        archive: a zip, or a tar however compressed; the suffix does not matter.
        wanted: folders and files in the archive, with slashes; each lies at the same place in `raw`
            afterwards.
        raw: the folder to unpack to.
        console: for the progress bar.

    Raises:
        UserError: the archive is damaged, lacks something, or holds a name that leads out of `raw`.
    """
    missing = [name for name in wanted if not (raw / name).exists()]
    partial = raw / f".{archive.name}.unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        try:
            extract = _extract_zip if zipfile.is_zipfile(archive) else _extract_tar
            extract(archive, [PurePosixPath(name) for name in missing], partial, console)
        except UserError:
            raise
        except Exception as error:  # a damaged archive raises nearly anything
            if isinstance(error, OSError) and error.errno not in (None, *_BY_NAMES):
                raise  # the disk, not the archive: a damaged stream has no error number
            raise UserError(
                f"archive {str(archive)!r} is damaged ({shown(str(error) or type(error).__name__)}); delete "
                "it and run again to download it anew."
            ) from error
        for name in missing:
            if not (partial / name).exists():
                raise UserError(
                    f"archive {str(archive)!r} has no {name!r}; it is not the published one; delete it and "
                    "run again to download it anew."
                )
        for name in missing:
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / name, raw / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract_tar(archive: Path, wanted: list[PurePosixPath], partial: Path, console: Console) -> None:
    size = archive.stat().st_size
    with archive.open("rb") as file, bar(console, f"unpacking {archive.name}", size, "bytes") as done:
        at = 0
        # Not as a stream (r|*): that takes a compressed archive which ends too early for a whole one.
        with tarfile.open(fileobj=file, mode="r:*") as tar:
            for member in tar:
                if _is_wanted(member.name, wanted, archive) and member.isreg():
                    tar.extract(member, partial, filter="data")
                done(file.tell() - at)
                at = file.tell()
            assert tar.fileobj is not None
            while tar.fileobj.read(1 << 20):
                pass  # up to the checksum of the compressed data


def _extract_zip(archive: Path, wanted: list[PurePosixPath], partial: Path, console: Console) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = [info for info in zipped.infolist() if _is_wanted(info.filename, wanted, archive)]
        members = [info for info in members if not info.is_dir() and not _is_link(info)]
        total = sum(info.file_size for info in members)
        with bar(console, f"unpacking {archive.name}", total, "bytes") as done:
            for info in members:
                zipped.extract(info, partial)
                done(info.file_size)


def _is_wanted(name: str, wanted: list[PurePosixPath], archive: Path) -> bool:
    """Whether a member lies in what is wanted; a name that leads out of the folder ends everything."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"archive {str(archive)!r} holds {shown(name)}, which leads out of the folder; it is not the "
            "published one; delete it and run again to download it anew."
        )
    if path.name.startswith("._"):
        return False  # what macOS puts beside the files
    return any(path == folder or folder in path.parents for folder in wanted)


def _is_link(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a link or a device; writers that know no kinds leave 0."""
    return stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG)
