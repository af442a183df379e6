"""The error for a user's mistake, and the wording that every such error shares."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what a user gave: one line saying what was given, what is allowed, what to do."""


def unknown_name(key: str, given: str, allowed: Iterable[str], hint: str = "") -> UserError:
    """The error for a name that is not in a list, with the nearest allowed name.

    Args:
        key: what the name is for, as the user wrote it (`net_name`).
        given: the name that was given.
        allowed: every allowed name.
        hint: what to do, one sentence (`See neq networks.`).
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    text = f"{key} {given!r} is unknown; {meant}Allowed: {', '.join(names)}."
    return UserError(f"{text} {hint}".rstrip())
