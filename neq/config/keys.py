"""The keys of the schema as one flat table, and the ways between nested and flat settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from neq.config.schema import Config
from neq.utils.errors import UserError, shown, unknown_name

SYNONYMS = {"eval_per_epochs": "test_per_epochs"}


@dataclass(frozen=True)
class Leaf:
    """One key: its name, the section that it stands in (None: top level) and its field."""

    name: str
    section: str | None
    field: FieldInfo

    @property
    def path(self) -> str:
        """`run_config.n_epochs`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def nullable(self) -> bool:
        """Whether None is a value of its own; elsewhere it means the default."""
        return NoneType in get_args(self.field.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words, for a key that is one of a few or a list of them."""
        return _words(self.field.annotation)


def _words(annotation: object) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(word for part in get_args(annotation) for word in _words(part))


SECTIONS: dict[str, type[BaseModel]] = {
    name: type(field.default)
    for name, field in Config.model_fields.items()
    if isinstance(field.default, BaseModel)
}
ALL_LEAVES: tuple[Leaf, ...] = (
    *(Leaf(name, None, field) for name, field in Config.model_fields.items() if name not in SECTIONS),
    *(Leaf(name, key, field) for key, kind in SECTIONS.items() for name, field in kind.model_fields.items()),
)
LEAVES: dict[str, Leaf] = {leaf.name: leaf for leaf in ALL_LEAVES}


def find_leaf(name: str) -> Leaf | None:
    """The leaf of that name or synonym."""
    return LEAVES.get(SYNONYMS.get(name, name))


def _leaf_in(section: str | None, name: str) -> Leaf:
    """The leaf of a section; UserError when it has no such key."""
    leaf = find_leaf(name)
    if leaf is not None and leaf.section == section:
        return leaf
    if leaf is not None:
        place = shown(section) if section else "the top level"
        raise UserError(f"{name} is no key of {place}; write it as {leaf.path}")
    if section is None:
        allowed = [*SECTIONS, *(leaf.name for leaf in ALL_LEAVES if leaf.section is None)]
        raise unknown_name("key", name, allowed)
    raise unknown_name(f"key of {section}", name, SECTIONS[section].model_fields)


def _put(flat: dict[str, object], leaf: Leaf, value: object) -> None:
    if leaf.name in flat and flat[leaf.name] != value:
        raise UserError(
            f"{leaf.name} is given twice, as {shown(flat[leaf.name])} and as {shown(value)}; give it once"
        )
    flat[leaf.name] = value


def flatten_file(values: Mapping[str, object]) -> dict[str, object]:
    """Leaf -> value of nested settings, as read from a file; a section may be missing or None.

    Raises:
        UserError: for a key that the schema does not have, or a synonym that says something else.
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        if key not in SECTIONS:
            _put(flat, _leaf_in(None, str(key)), value)
        elif isinstance(value, Mapping):
            for name, item in value.items():
                _put(flat, _leaf_in(key, str(name)), item)
        elif value is not None:
            raise UserError(f"{key} {shown(value)} is not allowed: keys with values are expected")
    return flat


def flatten_overrides(values: Mapping[str, object]) -> dict[str, object]:
    """Leaf -> value of settings named by leaf (`n_epochs`) or by path (`run_config.n_epochs`).

    Raises:
        UserError: for a key that the schema does not have, or one given in two ways that differ.
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        section, dot, name = str(key).rpartition(".")
        leaf = find_leaf(name)
        if leaf is None:
            raise unknown_name("key", str(key), [*LEAVES, *SYNONYMS])
        _put(flat, _leaf_in(section, name) if dot else leaf, value)
    return flat


def flatten_config(config: Config) -> dict[str, object]:
    """Leaf -> value of a configuration."""
    return {
        leaf.name: getattr(getattr(config, leaf.section) if leaf.section else config, leaf.name)
        for leaf in ALL_LEAVES
    }


def nest(flat: Mapping[str, object]) -> dict[str, object]:
    """Nested settings from leaf -> value; None is left out where it is no value of its own."""
    sections: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
    top: dict[str, object] = {}
    for name, value in flat.items():
        leaf = LEAVES[name]
        if value is not None or leaf.nullable:
            (sections[leaf.section] if leaf.section else top)[name] = value
    return {**top, **sections}
