"""YAML files and values from a user: every mistake in one is a UserError of one line."""

from __future__ import annotations

import os
from pathlib import Path

from neq.config.yaml import YamlProblem, parse
from neq.utils.errors import UserError, shown, unknown_name

MAX_BYTES = 256 * 1024
CATALOG_FILES = ("networks", "datasets", "schemes", "published_results", "published_transfers")


def parse_value(text: str) -> object:
    """A flag's text as a YAML value: `1e-3`, `[1, 2]`, `no` (text), empty (None).

    Raises:
        UserError: when the text is not YAML.
    """
    try:
        return parse(text)
    except YamlProblem as problem:
        raise UserError(f"{shown(text)} is not a YAML value: {problem}") from None


def read_yaml(path: str | os.PathLike[str]) -> dict[str, object]:
    """The mapping that a YAML file holds; an empty file is an empty mapping.

    Raises:
        UserError: when it cannot be read, or is not one mapping in UTF-8.
    """
    name = shown(os.fspath(path))
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"file {name} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder; a YAML file is expected") from None
    except (OSError, ValueError) as error:
        raise UserError(f"file {name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"file {name} is larger than {MAX_BYTES} bytes; a YAML file of settings is expected")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"file {name}, line {line}: not UTF-8; save the file as UTF-8") from None
    try:
        value = parse(text)
    except YamlProblem as problem:
        where = f", line {problem.line}" if problem.line else ""
        raise UserError(f"file {name}{where}: {problem}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"file {name}, line 1: keys with values are expected, not {shown(value)}")
    return value


def configs_folder() -> Path:
    """The folder of the shipped YAML files: inside the installed package, else in the repository."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name_or_path: str) -> Path:
    """An existing file, or a shipped configuration by name; `.yaml` may be left out of either.

    Raises:
        UserError: when there is neither.
    """
    for path in (name_or_path, f"{name_or_path}.yaml"):
        if os.path.isfile(path):
            return Path(path)
    shipped = {path.stem: path for path in configs_folder().glob("*.yaml") if path.stem not in CATALOG_FILES}
    found = shipped.get(name_or_path.removesuffix(".yaml"))
    if found is not None:
        return found
    if os.path.isdir(name_or_path):
        raise UserError(f"config_file {shown(name_or_path)} is a folder; a YAML file is expected")
    raise unknown_name("config_file", name_or_path, shipped, "Give one of these names or a file's path.")
