"""YAML 1.2, and nothing of 1.1."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neq.config.yaml import MAX_DEPTH, MAX_DIGITS, YamlProblem, means_text, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("+2", 2),
        ("08", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("010", 10),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-05", "2024-01-05"),
        ("36-39-40", "36-39-40"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"null"', "null"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("[1, 2]", [1, 2]),
        ("{a: .5, b: [x, ]}", {"a": 0.5, "b": ["x"]}),
        ("[]", []),
        ("a: 1\nb:\n- 2\n- c: 3", {"a": 1, "b": [2, {"c": 3}]}),
        ("<<: 1", {"<<": 1}),
        ("1: a\nnull: b", {"1": "a", "null": "b"}),
        ("=", "="),
    ],
)
def test_values(text: str, value: Any) -> None:
    result = parse(text)
    assert result == value
    assert type(result) is type(value)


def test_nan() -> None:
    result = parse(".nan")
    assert isinstance(result, float)
    assert math.isnan(result)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\na: 2", "key 'a' stands there twice", 2),
        ("a: {b: 1,\n b: 2}", "key 'b' stands there twice", 2),
        ("a: 1\n\tb: 2", "a tab stands", 2),
        ("a:\n  - !!python/object:os.system x", "tags are not allowed", 2),
        ("!!python/name:os.system", "tags are not allowed", 1),
        ("a: !!str 1", "tags are not allowed", 1),
        ("a: 1\n---\nb: 2", "several documents", None),
        ("a: *b", "alias 'b' has no anchor", 1),
        ("a: &b [*b]", "alias 'b' has no anchor", 1),
        ("? [1, 2]\n: 3", "a key must be plain text", 1),
        ("a: [1", "expected ',' or ']'", 1),
        ("a: 'x", "end of stream", None),
        ("\x00", "unacceptable character", None),
        ('"\\U99999999"', "OverflowError", None),
        ("1" * (MAX_DIGITS + 1), "digits", 1),
    ],
)
def test_problems(text: str, problem: str, line: int | None) -> None:
    with pytest.raises(YamlProblem) as caught:
        parse(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    if line is not None:
        assert caught.value.line == line


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 10_000])
def test_deep_nesting(depth: int) -> None:
    with pytest.raises(YamlProblem, match="nested deeper"):
        parse("[" * depth + "]" * depth)
    with pytest.raises(YamlProblem, match="nested deeper"):
        parse("{a: " * depth + "}" * depth)
    parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_aliases_share_values_until_they_explode() -> None:
    assert parse("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    with pytest.raises(YamlProblem, match="values"):
        parse(bomb)


@given(st.text(max_size=30))
def test_what_means_text_reads_back_as_itself(text: str) -> None:
    if text.isalnum() and text.isascii() and means_text(text):
        assert parse(text) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_read_back_exactly(value: Any) -> None:
    assert parse(repr(value)) == value
