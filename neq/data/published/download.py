"""Download of a published file: resumed where it stopped, verified before the file gets its name.

pooch and torchvision verify a download too, but start an interrupted one again; the largest of these files
have 13 GB.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from neq.data.published.progress_bar import progress_bar
from neq.utils.errors import UserError, first_line

TRIES = 5
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20
# How a lost connection shows; a retry may help.
_LOST = (ConnectionError, TimeoutError, ssl.SSLError, urllib.error.URLError, http.client.HTTPException)


@dataclass(frozen=True)
class Download:
    """A published file.

    Args:
        name: its name in the raw folder.
        url: where it is published.
        md5: its published checksum; None if none is known.
        unpacks: the folders and files of the archive that are needed, relative to the raw folder; empty if
            the file is needed as it is.
    """

    name: str
    url: str
    md5: str | None = None
    unpacks: tuple[str, ...] = ()


class UnofficialError(UserError):
    """A file or a list differs from the published one."""


def fetch(download: Download, folder: Path, console: Console, verify: bool = True) -> str:
    """Make sure that a file is in a folder, downloading it if it is missing.

    A file without a published checksum is never resumed, as nothing could verify the result.

    Args:
        download: the file.
        folder: an existing folder. An unfinished download is kept there as NAME.part.
        console: shows the progress.
        verify: refuse a file whose checksum differs from the published one.

    Returns:
        The file's md5.

    Raises:
        UserError: the file cannot be downloaded. What was downloaded so far is kept and resumed.
        UnofficialError: its checksum differs. A file that was just downloaded is deleted; one that was there
            before is kept.
    """
    path, part = folder / download.name, folder / f"{download.name}.part"
    is_there = path.exists()
    if not is_there:
        if download.md5 is None:
            part.unlink(missing_ok=True)
        _download(download, part, console)
    found = md5_of(path if is_there else part, console)
    if download.md5 not in (None, found):
        what = f"{str(path)!r}" if is_there else f"the file from {download.url}"
        fault = f"{what} has md5 {found}, the published file {download.md5}"
        if verify and is_there:
            raise UnofficialError(f"{fault}; delete it and run again to download it")
        if verify:
            part.unlink()
            raise UnofficialError(
                f"{fault}; it was deleted; run again, or put {download.name} into {str(folder)!r} yourself"
            )
        console.print(f"warning: {fault}", highlight=False, markup=False)
    if not is_there:
        part.rename(path)
    return found


def md5_of(path: Path, console: Console) -> str:
    """The md5 of a file, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    size = path.stat().st_size
    with path.open("rb") as file, progress_bar(console, f"checking {path.name}", size, "bytes") as advance:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def _download(download: Download, part: Path, console: Console) -> None:
    """Download a file completely, resuming after lost connections."""
    failures, start = 0, _size(part)
    while True:
        before = _size(part)
        try:
            return _request(download, part, console)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
            is_final = error.code < 500 and error.code not in (408, 429)
        except _LOST as error:
            reason = first_line(getattr(error, "reason", error))
            # Nothing ever arrived: there is no network.
            is_final = isinstance(error, urllib.error.URLError) and _size(part) == start
        failures = 0 if _size(part) > before else failures + 1
        if is_final or failures == TRIES:
            raise UserError(
                f"{download.url} cannot be downloaded ({reason}); check the network and run the same command "
                f"again to continue after {_size(part):,} bytes, or put {download.name} into "
                f"{str(part.parent)!r}"
            )
        time.sleep(PAUSE_SECONDS * 2**failures)


def _request(download: Download, part: Path, console: Console) -> None:
    """Request the missing rest of a file and append it.

    Raises:
        OSError: the connection is lost (one of _LOST), or the disk fails.
        UserError: the disk has no room for the file.
    """
    offset = _size(part)
    request = urllib.request.Request(download.url, headers={"User-Agent": "neq"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return  # the part is the whole file
        part.unlink()
        raise ConnectionError("the file on the server is shorter than what was downloaded") from error
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            offset = 0  # the server does not support ranges and sends the whole file
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            part.unlink()
            raise ConnectionError("the server sent another range than the one requested")
        rest, free = response.length or 0, shutil.disk_usage(part.parent).free  # length: None if not stated
        if rest > free:
            raise UserError(
                f"{download.name} needs {rest:,} bytes more, but the disk of {str(part.parent)!r} "
                f"has {free:,} free; free some space or choose a folder on another disk"
            )
        total = offset + rest if rest else None
        with (
            part.open("ab" if offset else "wb") as file,
            progress_bar(console, f"downloading {download.name}", total, "bytes", offset) as advance,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
    if total is not None and _size(part) != total:
        raise ConnectionError("the connection was closed early")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
