"""The files of a data set in its raw folder: each downloaded, verified and unpacked only if it is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from neq.data.published.download import Download, UnofficialError, fetch
from neq.data.published.unpack import unpack
from neq.utils.atomic_files import write_text


def is_complete(downloads: Sequence[Download], raw: Path) -> bool:
    """Whether everything that is needed of a data set lies in its raw folder."""
    return all((raw / part).exists() for one in downloads for part in one.unpacks or (one.name,))


def obtain(
    name: str,
    downloads: Sequence[Download],
    raw: Path,
    console: Console,
    beside: Path | None = None,
    verify: bool = True,
    keep_archives: bool = True,
) -> list[str | None]:
    """Make sure that everything that is needed of a data set lies in its raw folder.

    A complete raw folder is only read, as others may share it. Otherwise one process works in it at a time;
    the others wait and then find the files.

    Args:
        name: of the data set.
        downloads: its published files.
        raw: the folder; it is created if it is missing.
        console: shows the progress.
        beside: another folder that may hold published files which the user has put there.
        verify: refuse files whose checksum differs from the published one.
        keep_archives: keep the archives that were downloaded.

    Returns:
        The md5 of each published file; None for an archive that somebody else has unpacked.

    Raises:
        UserError: a file cannot be downloaded or unpacked, or its checksum differs.
    """
    if is_complete(downloads, raw):
        turn: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    else:
        raw.mkdir(parents=True, exist_ok=True)
        turn = _taking_turns(raw / f".{name}.lock", console)
    with turn:
        return [_obtain(one, raw, beside or raw, console, verify, keep_archives) for one in downloads]


@contextlib.contextmanager
def _taking_turns(lock: Path, console: Console) -> Iterator[None]:
    """Wait until no other process works in the folder of the lock."""
    try:
        acquired = FileLock(lock).acquire(timeout=0)
    except Timeout:
        console.print(f"waiting for another process that writes {str(lock.parent)!r}", highlight=False)
        acquired = FileLock(lock).acquire()
    with acquired:
        yield


def _obtain(
    download: Download, raw: Path, beside: Path, console: Console, verify: bool, keep_archives: bool
) -> str | None:
    """Make sure that one file is there, unpacked if it is an archive; its md5 if that is known."""
    # The md5 of the archive is kept beside what was unpacked, as the archive itself may be deleted.
    record = raw / f".{download.name}.md5"
    if download.unpacks and is_complete([download], raw):
        md5 = record.read_text() if record.exists() else None
        if verify and md5 not in (None, download.md5):
            raise UnofficialError(
                f"{str(raw / download.unpacks[0])!r} was unpacked from an archive with md5 {md5}, the "
                f"published one has {download.md5}; delete {', '.join(download.unpacks)} and "
                f"{download.name} in {str(raw)!r} and run again"
            )
        return md5
    is_beside = not (raw / download.name).exists() and (beside / download.name).is_file()
    path = (beside if is_beside else raw) / download.name
    is_the_users = path.exists()
    md5 = fetch(download, path.parent, console, verify)
    if download.unpacks:
        unpack(path, download.unpacks, raw, console)
        write_text(record, md5)
        if not (keep_archives or is_the_users):
            path.unlink()
    elif is_beside:
        partial = raw / f".{download.name}.part"
        shutil.copyfile(path, partial)
        os.replace(partial, raw / download.name)
    return md5
