"""Slow results that depend on files alone, kept in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from neq.config.paths import cache_folder
from neq.utils.atomic_files import write_text


def file_stamp(files: Iterable[str], *more: object) -> str:
    """A key that changes if one of the files does: sha256 of paths, sizes and modification times.

    Args:
        files: paths; a missing file has a state of its own.
        more: whatever else the result depends on.
    """
    digest = hashlib.sha256(repr(more).encode())
    for file in files:
        path = os.path.abspath(file)
        try:
            found = os.stat(path)
            state = f"\0{found.st_size}\0{found.st_mtime_ns}\n"
        except OSError:
            state = "\0gone\n"
        digest.update(os.fsencode(path) + state.encode())
    return digest.hexdigest()


def memoize(kind: str, key: str, compute: Callable[[], Any]) -> Any:
    """The stored result; computed and stored if there is none, or it cannot be read.

    Args:
        kind: of result; names a folder in the cache folder.
        key: as returned by `file_stamp`.
        compute: returns a result that JSON can represent.
    """
    path = cache_folder() / kind / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text(encoding="utf-8"))
    result = compute()
    with contextlib.suppress(OSError):  # a full or read-only disk only means computing again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(result))
    return result
