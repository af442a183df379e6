"""Fetching a published file: continued where it stopped, and checked before it gets its name.

No library that neq has, or could take for this alone, continues a download (pooch and torchvision start
again), and the largest of these files have 13 GB.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from rich.console import Console

from neq.preparing.progress import bar
from neq.preparing.published import Download
from neq.utils.errors import UserError

TRIES = 5
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 60.0
_CHUNK = 1 << 20


class _Cut(Exception):
    """The server, or the way to it, failed; another try may help."""


def fetch(download: Download, raw: Path, console: Console, verify: bool) -> str:
    """Makes sure that a file is in the raw folder.

    Args:
        download: the file. Without a checksum it is not continued but started again.
        raw: the folder, which exists. An unfinished file lies there as NAME.part.
        console: for the progress bar.
        verify: refuse a file with another checksum than the published one.

    Returns:
        The file's md5.

    Raises:
        UserError: it cannot be downloaded, or has another checksum. What was downloaded before an
            interruption stays and is continued; what has the wrong checksum is deleted, unless it was
            there before.
    """
    path = raw / download.name
    if path.exists():
        found = md5_of(path, console)
        check(download, found, f"{str(path)!r}", "delete it and run again to download it", verify, console)
        return found
    part = raw / f"{download.name}.part"
    if download.md5 is None:
        part.unlink(missing_ok=True)
    _download(download, part, console)
    found = md5_of(part, console)
    remedy = f"it was deleted; run again, or put {download.name} into {str(raw)!r} yourself"
    try:
        check(download, found, f"what {download.url} gave", remedy, verify, console)
    except UserError:
        part.unlink()
        raise
    part.rename(path)
    return found


def check(download: Download, found: str, what: str, remedy: str, verify: bool, console: Console) -> None:
    """Holds a checksum against the published one.

    Args:
        download: the published file.
        found: the md5 found.
        what: whose it is, for the message.
        remedy: what the user can do.
        verify: refuse another one; else it is printed.
        console: for the warning.

    Raises:
        UserError: it is another one, and `verify` is set.
    """
    if download.md5 in (None, found):
        return
    fault = f"{what} has md5 {found}, the published file {download.md5}"
    if verify:
        raise UserError(f"{fault}; {remedy}, or give --unverified to use it as it is.")
    console.print(f"warning: {fault}", highlight=False, markup=False)


def md5_of(path: Path, console: Console) -> str:
    """The md5 of a file, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, bar(console, f"checking {path.name}", path.stat().st_size, "bytes") as done:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done(len(chunk))
    return digest.hexdigest()


def _download(download: Download, part: Path, console: Console) -> None:
    """Downloads a file to its end, in several tries if need be."""
    failures = 0
    start = _size(part)
    while True:
        before = _size(part)
        try:
            return _one_try(download, part, console)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
            hopeless = error.code < 500 and error.code not in (408, 429)
        except _Cut as error:
            reason = str(error)
            hopeless = False
        except (urllib.error.URLError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            hopeless = _size(part) == start  # nothing ever came: the network is not there
        failures = 0 if _size(part) > before else failures + 1
        if hopeless or failures == TRIES:
            raise UserError(
                f"{download.url} cannot be downloaded ({reason}); check the network and run again, which "
                f"goes on after {_size(part):,} bytes, or put {download.name} into {str(part.parent)!r}."
            )
        time.sleep(PAUSE_SECONDS * 2**failures)


def _one_try(download: Download, part: Path, console: Console) -> None:
    """Asks for what is missing of the file, and appends it."""
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
            return  # all of it was there
        part.unlink()
        raise _Cut("the file on the server is shorter than what was downloaded") from error
    except (TimeoutError, ConnectionError) as error:
        raise _Cut(_reason(error)) from error
    with response:
        total = _total(response, offset)
        if response.status != http.client.PARTIAL_CONTENT:
            offset = 0  # the server does not continue files: from the start
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            part.unlink()
            raise _Cut("the server sent another part than the one asked for")
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - offset > free:
            raise UserError(
                f"{download.name} needs {total - offset:,} bytes more, but the disk of {str(part.parent)!r} "
                f"has {free:,} free; free some, or give another --raw."
            )
        with (
            part.open("ab" if offset else "wb") as file,
            bar(console, f"downloading {download.name}", total, "bytes", offset) as done,
        ):
            while chunk := _read(response):
                file.write(chunk)
                done(len(chunk))
    if total is not None and _size(part) != total:
        raise _Cut("the connection was closed early")


def _read(response: IO[bytes]) -> bytes:
    """The next piece of an answer; another try helps the network, not the disk."""
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _total(response: http.client.HTTPResponse, offset: int) -> int | None:
    """The size of the whole file, if the answer tells it."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        return None
    return int(length) + (offset if response.status == http.client.PARTIAL_CONTENT else 0)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
