"""Text in, plain values out, by the YAML 1.2 core schema and nothing else.

ruamel reads the syntax; what a scalar means is decided here: `no` is text, `1e-3` a number,
`2024-01-05` text. Keys are always text. Tags are refused, and so is what grows without bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
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


@dataclass
class _Open:
    """A list or mapping whose end has not been read yet; size counts its nodes, aliases unfolded."""

    value: list[object] | dict[str, object]
    anchor: str | None
    key: str | None = None
    size: int = 1

    def awaits_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None

    def take_key(self, event: Event, line: int) -> None:
        if not isinstance(event, ScalarEvent):
            raise YamlProblem("a key must be plain text", line)
        if event.value in self.value:
            raise YamlProblem(f"key {shown(event.value)} stands there twice", line)
        self.key = event.value

    def take(self, value: object, size: int, line: int) -> None:
        self.size += size
        if self.size > MAX_NODES:
            raise YamlProblem(f"more than {MAX_NODES} values", line)
        if isinstance(self.value, list):
            self.value.append(value)
        else:
            assert self.key is not None
            self.value[self.key] = value
            self.key = None


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


def _documents(text: str) -> list[object]:
    """The documents of a text as plain values. Iterative, so that no depth exhausts the stack."""
    documents: list[object] = []
    parents: list[_Open] = []
    anchors: dict[str, tuple[object, int]] = {}
    for event in YAML(typ="safe", pure=True).parse(text):
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            raise YamlProblem(f"tags are not allowed, here {shown(str(event.tag))}", line)
        if not isinstance(event, (NodeEvent, CollectionEndEvent)):
            continue
        if isinstance(event, NodeEvent) and parents and parents[-1].awaits_key():
            parents[-1].take_key(event, line)
            continue
        if isinstance(event, CollectionStartEvent):
            parents.append(_Open({} if isinstance(event, MappingStartEvent) else [], event.anchor))
            if len(parents) > MAX_DEPTH:
                raise YamlProblem(f"nested deeper than {MAX_DEPTH} levels", line)
            continue
        node: tuple[object, int]
        if isinstance(event, AliasEvent):
            if event.anchor not in anchors:
                raise YamlProblem(f"alias {shown(event.anchor)} has no anchor before it", line)
            node, anchor = anchors[event.anchor], None
        elif isinstance(event, ScalarEvent):
            node, anchor = (_scalar(event, line), 1), event.anchor
        else:
            closed = parents.pop()
            node, anchor = (closed.value, closed.size), closed.anchor
        if anchor is not None:
            anchors[anchor] = node
        if parents:
            parents[-1].take(*node, line)
        else:
            documents.append(node[0])
    return documents


def parse(text: str) -> object:
    """The one document of a text, None when there is none.

    Raises:
        YamlProblem: when the text is not YAML, or more than that.
    """
    try:
        documents = _documents(text)
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
