"""The configuration's keys as one flat table, and conversion between nested and flat settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from neq.config.compat import SECTION_OF, SYNONYMS, PublishedKeys
from neq.config.schema import Config, OneOf, Section
from neq.utils.errors import UserError, shown, unknown_name

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Args:
        name: as in its section.
        section: the section (None: top level).
        field: type, default and description.
        flat_name: its name in flat settings and as a flag: `name`, or `path` where a wing's section repeats a
            name of the core.
    """

    name: str
    section: str | None
    field: FieldInfo
    flat_name: str

    @property
    def path(self) -> str:
        """`run_config.n_epochs`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def is_identity(self) -> bool:
        """Whether it can change a run's result, and so is part of the run's identity; see `NOT_IDENTITY`."""
        return self._marked is not False

    @property
    def is_content(self) -> bool:
        """Whether what it names is part of the identity by its content; see `CONTENT`."""
        return self._marked == "content"

    @property
    def _marked(self) -> object:
        extra = self.field.json_schema_extra
        return extra.get("identity") if isinstance(extra, dict) else None

    @property
    def nullable(self) -> bool:
        """Whether None is a value; elsewhere it stands for the default."""
        return NoneType in get_args(self.field.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words, for a key that takes one of a few words or a list of them."""
        named = (tuple(mark.words()) for mark in self.field.metadata if isinstance(mark, OneOf))
        return next(named, None) or _words(self.field.annotation)


def _words(annotation: object) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(word for part in get_args(annotation) for word in _words(part))


SECTIONS: dict[str, type[BaseModel]] = {
    name: type(field.default)
    for name, field in Config.model_fields.items()
    if isinstance(field.default, BaseModel)
}
KEYS: dict[str, Key] = {
    **{
        name: Key(name, None, field, name)
        for name, field in Config.model_fields.items()
        if name not in SECTIONS
    },
    **{
        name: Key(name, section, field, name)
        for section, kind in SECTIONS.items()
        for name, field in kind.model_fields.items()
    },
}
PUBLISHED: dict[str, Key] = {
    name: Key(name, SECTION_OF[name], field, name) for name, field in PublishedKeys.model_fields.items()
}
_model: type[Config] = Config


def config_model() -> type[Config]:
    """The configuration's class, with the sections registered so far."""
    return _model


def register_section(name: str, kind: type[Section]) -> None:
    """Adds a wing's section to the configuration: its keys become settings, flags and sweep parameters.

    A key is part of a run's identity unless its field says otherwise, but only where it differs from its
    default, so that a new section renames no run. Registering the same section again changes nothing.

    Args:
        name: of the section in files; one that no key or section has.
        kind: the section's class; every field has a default and a description.

    Raises:
        ValueError: the name is taken, or a field has no default.
    """
    global _model
    if SECTIONS.get(name) is kind:
        return
    if name in SECTIONS or name in KEYS:
        raise ValueError(f"{name!r} is a section or key already; choose another name for {kind.__name__}")
    for field_name, field in kind.model_fields.items():
        if field.is_required():
            raise ValueError(f"{name}.{field_name} needs a default: a run without the section must resolve")
    _model = create_model("Config", __base__=_model, **{name: (kind, kind())})  # type: ignore[call-overload]
    SECTIONS[name] = kind
    for field_name, field in kind.model_fields.items():
        is_taken = field_name in KEYS or field_name in PUBLISHED or field_name in SYNONYMS
        flat_name = f"{name}.{field_name}" if is_taken else field_name
        KEYS[flat_name] = Key(field_name, name, field, flat_name)


def section_of(config: Config, kind: type[S]) -> S:
    """The settings of a registered section.

    Args:
        config: a run's configuration.
        kind: the section's class.
    """
    name = next(name for name, registered in SECTIONS.items() if registered is kind)
    found = getattr(config, name)
    assert isinstance(found, kind)
    return found


def find_key(name: str) -> Key | None:
    """The key of a flat name, path or synonym; None where there is none."""
    key = KEYS.get(SYNONYMS.get(name, name)) or PUBLISHED.get(name)
    if key is None and "." in name:
        section, _, last = name.rpartition(".")
        plain = KEYS.get(SYNONYMS.get(last, last)) or PUBLISHED.get(last)
        key = plain if plain is not None and plain.section == section else None
    return key


def _key_in(section: str | None, name: str) -> Key:
    """The key of a section; UserError when the section has none of that name."""
    key = find_key(f"{section}.{name}" if section else name)
    if key is not None and key.section == section:
        return key
    elsewhere = find_key(name)
    if elsewhere is not None:
        where = shown(section) if section else "the top level"
        raise UserError(f"{name} is not a key of {where}; write it as {elsewhere.path}")
    if section is None:
        allowed = [*SECTIONS, *(key.name for key in KEYS.values() if key.section is None)]
        raise unknown_name("key", name, allowed)
    raise unknown_name(f"key of {section}", name, SECTIONS[section].model_fields)


def _put(flat: dict[str, object], key: Key, value: object) -> None:
    name = key.flat_name
    if name in flat and flat[name] != value:
        raise UserError(f"{name} is given twice, as {shown(flat[name])} and as {shown(value)}; give it once")
    flat[name] = value


def flatten_file(values: Mapping[str, object]) -> dict[str, object]:
    """Flat settings of nested ones, as read from a file; a section may be missing or None.

    Raises:
        UserError: for an unknown key, or a synonym that contradicts its key.
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        if key not in SECTIONS:
            _put(flat, _key_in(None, str(key)), value)
        elif isinstance(value, Mapping):
            for name, item in value.items():
                _put(flat, _key_in(key, str(name)), item)
        elif value is not None:
            raise UserError(f"{key} {shown(value)} is not allowed: keys with values are expected")
    return flat


def flatten_overrides(values: Mapping[str, object]) -> dict[str, object]:
    """Flat settings of ones named by key (`n_epochs`), path (`run_config.n_epochs`) or section.

    Args:
        values: by name; of a section (`run_config`), a mapping of some of its keys.

    Raises:
        UserError: for an unknown key, or one given in two ways that differ.
    """
    flat: dict[str, object] = {}
    for name, value in values.items():
        if name in SECTIONS:
            for of_section, item in flatten_file({name: value}).items():
                _put(flat, KEYS.get(of_section) or PUBLISHED[of_section], item)
            continue
        section, dot, last = str(name).rpartition(".")
        if find_key(str(name)) is None and find_key(last) is None:
            raise unknown_name("key", str(name), [*KEYS, *PUBLISHED, *SYNONYMS])
        key = _key_in(section, last) if dot else find_key(last)
        assert key is not None
        _put(flat, key, value)
    return flat


def flatten_config(config: Config) -> dict[str, object]:
    """Flat settings of a configuration."""
    return {
        name: getattr(getattr(config, key.section) if key.section else config, key.name)
        for name, key in KEYS.items()
    }


def nest(flat: Mapping[str, object]) -> dict[str, object]:
    """Nested settings of flat ones; None is left out where it stands for the default."""
    sections: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
    top: dict[str, object] = {}
    for name, value in flat.items():
        key = KEYS[name]
        if value is not None or key.nullable:
            (sections[key.section] if key.section else top)[key.name] = value
    return {**top, **sections}
