"""Text in, plain values out, by the YAML 1.2 core schema and nothing else.

ruamel reads the syntax; what a scalar means is decided here: `no` is text, `1e-3` a number,
`2024-01-05` text. Keys are always text. Tags are refused, and so is what grows without bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from neq.utils.errors import first_line, shown

MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_DIGITS = 100

NULLS = ("", "~", "null", "Null", "NULL")
_WORDS: Mapping[str, object] = {
    **dict.fromkeys(NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class YamlProblem(Exception):
    """What is wrong in a text, and on which line (from 1; None: not known)."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def means_text(text: str) -> bool:
    """Whether an unquoted scalar is text, and not a number, a truth value or null."""
    return text not in _WORDS and not _INTEGER.fullmatch(text) and not _FLOAT.fullmatch(text)


def _scalar(event: ScalarEvent, line: int) -> object:
    """What a scalar means."""
    text: str = event.value
    if not event.implicit[0] or means_text(text):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > MAX_DIGITS:
        raise YamlProblem(f"number {shown(text)} has more than {MAX_DIGITS} digits", line)
    if _INTEGER.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text)


class _Reader:
    """Builds the documents of a text from its events.

    Args:
        events: of ruamel's parser.
    """

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._nodes = 0  # aliases unfolded
        self._anchors: dict[str, tuple[object, int]] = {}

    def documents(self) -> Iterator[object]:
        """Every document as plain values."""
        for event in self._events:
            if isinstance(event, NodeEvent):
                yield self._value(event, 1)

    def _value(self, event: NodeEvent, depth: int) -> object:
        line, before = event.start_mark.line + 1, self._nodes
        self._refuse_tag(event, line)
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                raise YamlProblem(f"alias {shown(event.anchor)} has no anchor before it", line)
            value, size = self._anchors[event.anchor]
            self._count(size, line)
            return value
        self._count(1, line)
        if isinstance(event, ScalarEvent):
            value = _scalar(event, line)
        elif depth > MAX_DEPTH:
            raise YamlProblem(f"nested deeper than {MAX_DEPTH} levels", line)
        elif isinstance(event, MappingStartEvent):
            value = self._mapping(depth + 1)
        else:
            value = [self._value(item, depth + 1) for item in self._items()]
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._nodes - before
        return value

    def _mapping(self, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for key in self._items():
            line = key.start_mark.line + 1
            self._refuse_tag(key, line)
            if not isinstance(key, ScalarEvent):
                raise YamlProblem("a key must be plain text", line)
            if key.value in found:
                raise YamlProblem(f"key {shown(key.value)} stands there twice", line)
            found[key.value] = self._value(next(self._events), depth)
        return found

    def _items(self) -> Iterator[NodeEvent]:
        """The events up to the end of the list or mapping that has just begun."""
        while not isinstance(event := next(self._events), CollectionEndEvent):
            yield event

    def _refuse_tag(self, event: NodeEvent, line: int) -> None:
        if getattr(event, "tag", None) is not None:
            raise YamlProblem(f"tags are not allowed, here {shown(str(event.tag))}", line)

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise YamlProblem(f"more than {MAX_NODES} values", line)


def parse(text: str) -> object:
    """The one document of a text, None when there is none.

    Raises:
        YamlProblem: when the text is not YAML, or more than that.
    """
    try:
        documents = list(_Reader(YAML(typ="safe", pure=True).parse(text)).documents())
    except YamlProblem:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join((error.problem or error.context or "not YAML").split())
        if "'\\t'" in problem:
            problem = "a tab stands where only spaces may"
        raise YamlProblem(problem, mark.line + 1 if mark else None) from None
    except YAMLError as error:
        raise YamlProblem(first_line(error)) from None
    except Exception as error:  # ruamel lets others through, as OverflowError for "\U99999999"
        raise YamlProblem(f"not YAML ({type(error).__name__})") from None
    if len(documents) > 1:
        raise YamlProblem("several documents; one is allowed")
    return documents[0] if documents else None
