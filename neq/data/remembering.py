"""Answers that are kept in the cache folder, as they take long to find and depend on files alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from neq.config.paths import cache_folder
from neq.utils.atomic_files import write_text


def stamp(files: Iterable[str], *more: object) -> str:
    """What changes when one of the files does: sha256 over paths, sizes and times of change.

    Args:
        files: paths; one that is not there counts as such.
        more: what else the answer depends on.
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


def remembered(kind: str, key: str, find: Callable[[], Any]) -> Any:
    """The answer that was found before, else the one found now.

    Args:
        kind: of answer; names a folder in the cache folder.
        key: as `stamp` gives it.
        find: gives the answer, as JSON can hold it.
    """
    path = cache_folder() / kind / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text(encoding="utf-8"))
    answer = find()
    with contextlib.suppress(OSError):  # a full or read-only disk only means to ask again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(answer))
    return answer
