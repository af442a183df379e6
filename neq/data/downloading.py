"""Data sets that torchvision downloads, so that half a download never counts as a data set.

A set is downloaded and unpacked in a hidden folder beside its place and moved there when it is whole. What
torchvision fetches it verifies by checksum. An archive that the user has put into the folder is taken instead
of a download.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from neq.config.paths import data_folder
from neq.utils.errors import UserError

_TIMEOUT_S = 30.0
# Makes the data sets of torchvision of one folder: (folder, download).
Make = Callable[[str, bool], list[Any]]


@dataclass(frozen=True)
class Download:
    """What there is to know about a set that torchvision downloads.

    Args:
        name: of the set.
        page: where its publisher offers it.
        parts: the files and folders of a whole copy, relative to the data folder.
        archives: the files that torchvision downloads and verifies, where it puts them.
        make: builds torchvision's data sets, one a split.
    """

    name: str
    page: str
    parts: tuple[str, ...]
    archives: tuple[str, ...]
    make: Make

    def open(self, root: str | None) -> tuple[Path, list[Any]]:
        """The data folder and torchvision's data sets in it, downloaded first where they are not there.

        Args:
            root: the data folder; none: that of all data sets.

        Raises:
            UserError: they cannot be downloaded, or what is there is damaged.
        """
        folder = data_folder(root)
        if not self._is_there(folder):
            self._download(folder)
        try:
            return folder, self.make(str(folder), False)
        except Exception as error:  # unpickling and parsing raise nearly anything on a damaged file
            raise self.damaged(folder, _reason(error)) from error

    def damaged(self, folder: Path, reason: str) -> UserError:
        """The error for a copy that is there and not whole."""
        return UserError(
            f"data set {self.name} in {str(folder)!r} is incomplete or damaged ({reason}); remove "
            f"{' and '.join(self._roots())} there and start again: it is then downloaded anew."
        )

    def _is_there(self, folder: Path) -> bool:
        there = [part for part in self.parts if (folder / part).exists()]
        missing = [part for part in self.parts if part not in there]
        if missing and any((folder / part).is_dir() for part in there):
            raise self.damaged(folder, f"{missing[0]} is missing")
        return not missing

    def _download(self, folder: Path) -> None:
        stage = folder / f".{self.name}.part"
        archives = " and ".join(Path(archive).name for archive in self.archives or self.parts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f".{self.name}.lock"):
                if self._is_there(folder):  # another process was faster
                    return
                try:
                    self._prepare(stage, folder)
                    with _timeout():
                        self.make(str(stage), True)
                    self._publish(stage, folder)
                finally:
                    _remove_empty(stage)
        except Exception as error:  # network, disk, archive: each raises its own kind
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"data set {self.name} is not in {str(folder)!r} and cannot be downloaded "
                f"({_reason(error)}); put {archives} from {self.page} there, "
                "or give the folder that has it with --root."
            ) from error

    def _prepare(self, stage: Path, folder: Path) -> None:
        """A stage of nothing but the archives that are there already; what was unpacked may be half."""
        fresh = stage.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for archive in self.archives:
            target = fresh / archive
            target.parent.mkdir(parents=True, exist_ok=True)
            for place in (stage / archive, folder / archive, folder / Path(archive).name):
                if place.is_file():
                    _link(place, target)
                    break
        shutil.rmtree(stage, ignore_errors=True)
        os.replace(fresh, stage)

    def _publish(self, stage: Path, folder: Path) -> None:
        """Move what is whole to its place; a killed move is made good by the next download."""
        for part in self.parts:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            os.replace(stage / part, folder / part)
        shutil.rmtree(stage, ignore_errors=True)

    def _roots(self) -> list[str]:
        """The top entries of the parts."""
        return list(dict.fromkeys(Path(part).parts[0] for part in self.parts))


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system cannot."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    """A server that falls silent is an error: torchvision would wait for it for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _remove_empty(folder: Path) -> None:
    """Remove a tree that holds no file."""
    if folder.exists() and not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
