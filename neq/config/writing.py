"""A configuration as a YAML file that reads back as itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neq.config.schema import Config
from neq.config.yaml import means_text

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-")


def to_mapping(config: Config) -> dict[str, object]:
    """The configuration as nested plain values: dicts, lists, numbers, text, None."""
    return config.model_dump(mode="json")


def to_yaml(config: Config) -> str:
    """The complete configuration as YAML, in the schema's order; floats in full precision."""
    lines = []
    for key, value in to_mapping(config).items():
        if isinstance(value, Mapping):
            lines += ["", f"{key}:", *(f"  {name}: {flow_value(item)}" for name, item in value.items())]
        else:
            lines.append(f"{key}: {flow_value(value)}")
    return "\n".join(lines) + "\n"


def flow_value(value: object) -> str:
    """A value as YAML on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(flow_value, value)) + "]"
    return repr(value)


def _text(text: str) -> str:
    """Text bare where that is safe, else in double quotes."""
    safe = _PLAIN.issuperset(text) and text[:1] not in ("-", "") and means_text(text)
    return text if safe else '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
