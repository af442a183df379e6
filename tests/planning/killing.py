"""Sequences whose process ends at any of the files that it writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest


class Killed(BaseException):
    """In place of the end of a process."""


def killed_and_finished(
    monkeypatch: pytest.MonkeyPatch, moves: Sequence[int], run: Callable[[], object]
) -> int:
    """Calls something that is killed, again and again, and then to its end; how often it was killed.

    Every file is written under another name and then moved: a call ends before one of these moves.

    Args:
        moves: for each call, the number of the move that it does not live to see, from 1.
        run: goes on where the call before was killed.
    """
    replace, left, kills = os.replace, 0, 0

    def killing(*paths: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        replace(*paths)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", killing)
    for left in moves:  # noqa: B007  (counted down by `killing`)
        try:
            run()
        except Killed:
            kills += 1
    left = 0
    run()
    return kills
