"""The error for a user's mistake, and the wording that every such error shares."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

MOST_LISTED = 40
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


class UserError(ValueError):
    """A mistake in what a user gave: one line saying what was given, what is allowed, what to do.

    Args:
        text: what is no printable character in it, as in names that files bear, is spelled out.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


def printable(text: str) -> str:
    """A text on one line, with line breaks and what would command a terminal spelled out."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def first_line(error: BaseException) -> str:
    """The first line of what an error says that is not empty; the name of its type where it says nothing.

    Args:
        error: any, also of a library, whose text may begin with empty lines and have many.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def shown(value: object) -> str:
    """The value as an error line shows it: its repr, cut when long, never with a line break in it."""
    return _SHORT.repr(value).replace("\n", " ")


def unknown_name(key: str, given: str, allowed: Iterable[str], hint: str = "") -> UserError:
    """The error for a name that is not in a list, with the nearest allowed name.

    Args:
        key: what the name is for, as the user wrote it (`net_name`).
        given: the name that was given.
        allowed: every allowed name.
            A long list is left out where a hint says where to find it.
        hint: what to do, one sentence (`See neq networks.`).
    """
    names = sorted(allowed)
    known = {_compared(name): name for name in names}
    near = [known[name] for name in _close_matches(_compared(given), known)]
    near += [name for key, name in known.items() if _compared(given) in key.split("_")]  # `lr` of base_lr
    meant = f"; did you mean {near[0]!r}?" if near else "."
    listed = "" if hint and len(names) > MOST_LISTED else f" Allowed: {', '.join(names)}."
    return UserError(f"{key} {shown(given)} is unknown{meant}{listed} {hint}".rstrip())


def _close_matches(given: str, known: Iterable[str]) -> list[str]:
    """Similar names, the most similar first; of equally similar ones the first in the alphabet."""
    matches = sorted(difflib.get_close_matches(given, known))
    return sorted(matches, key=lambda name: -difflib.SequenceMatcher(None, name, given).ratio())


def _compared(name: str) -> str:
    """A name as it is compared: a flag without its dashes, which every flag has."""
    return name.lower().lstrip("-").replace("-", "_")
