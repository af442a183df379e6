"""The command line of a run: one flag for every key of the schema."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NoReturn, get_args, get_origin

from neq.config.catalog import PRE_TRAINED, is_pretrained
from neq.config.keys import KEYS, PUBLISHED, SECTIONS, Key, find_key, flatten_file, flatten_overrides
from neq.config.reading import find_config, parse_value, read_yaml
from neq.config.resolve import Resolved, resolve
from neq.config.writing import flow_value
from neq.config.yaml import NULLS
from neq.utils.errors import UserError, shown, unknown_name

DEFAULT_CONFIG = "transfer"
# The recipe of a pretrained network on a folder of images.
PHOTOS_CONFIG = "photos"
SWITCHES = {
    "--dry-run": "report what would run, and stop",
    "--overwrite": "train again in a folder that holds a finished or unfinished run",
    "--debug": "show tracebacks",
}


@dataclass(frozen=True)
class Options:
    """The options of a command line: its configuration file, whether that is named, overrides, switches."""

    config_file: str = DEFAULT_CONFIG
    overrides: Mapping[str, object] = field(default_factory=dict)
    dry_run: bool = False
    overwrite: bool = False
    debug: bool = False
    names_config: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _types(key: Key) -> set[object]:
    """The types that a value may have; for a list, those of its items."""
    annotation = key.field.annotation
    parts = get_args(annotation) or (annotation,)
    return {get_args(part)[0] if get_origin(part) is Annotated else part for part in parts}


def _metavar(key: Key) -> str:
    """The kind of value that the help shows."""
    types = _types(key)
    if get_origin(key.field.annotation) is tuple or key.name == "mean_std":
        return "LIST"
    if key.choices and float not in types:
        return "{" + ",".join(key.choices) + "}"
    kinds = {bool: "0|1", int: "INTEGER", float: "NUMBER", str: "TEXT"}
    return "|".join((next((name for kind, name in kinds.items() if kind in types), "LIST"), *key.choices))


def build_parser(
    prog: str, defaults: Mapping[str, object], epilog: str | None = None
) -> argparse.ArgumentParser:
    """The parser of a run's command line: every key by its name; `_tidy` turns paths and synonyms into names.

    Args:
        prog: the program's name.
        defaults: default of a key in the help, where it is not the schema's.
        epilog: at the end of the help.
    """
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [--config-file NAME|PATH] [--KEY VALUE ...]".replace("%", "%%"),
        description="Dashes and underscores in names are the same. Values are YAML: 1e-3, [1, 2], null. "
        f"Defaults are those of the configuration {DEFAULT_CONFIG!r}.",
        epilog=epilog,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config-file",
        action="append",
        metavar="NAME|PATH",
        help=f"file to start from, or a shipped one by name (default: {DEFAULT_CONFIG}; {PHOTOS_CONFIG} for "
        "image_folder, unless a network that starts at random is named)",
    )
    for switch, text in SWITCHES.items():
        parser.add_argument(switch, action="store_true", help=text)
    groups: dict[str | None, argparse._ArgumentGroup] = {None: parser.add_argument_group("run")}
    for section, kind in SECTIONS.items():
        groups[section] = parser.add_argument_group(section, kind.__doc__)
    for key in [*KEYS.values(), *PUBLISHED.values()]:
        default = flow_value(defaults.get(key.flat_name, key.field.default))
        optional: dict[str, Any] = {"nargs": "?", "const": "true"} if bool in _types(key) else {}
        groups[key.section].add_argument(
            f"--{key.flat_name}",
            dest=key.flat_name,
            action="append",
            metavar=_metavar(key),
            help=f"{key.field.description} (default: {default})".replace("%", "%%"),
            **optional,
        )
    return parser


def _tidy(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Names as the parser knows them, each joined to its value, so that `-1e-3` is one and not a flag."""
    options = {name.replace("-", "_"): name for name in parser._option_string_actions}
    valueless = {"-h", "--help", *SWITCHES}
    tidy: list[str] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            tidy.append(token)
            continue
        name, equals, text = token.partition("=")
        plain = name.replace("-", "_")
        key = find_key(plain.removeprefix("__"))
        name = options.get(plain, name) if key is None else f"--{key.flat_name}"
        if not equals and name not in valueless and rest and not rest[0].startswith("--"):
            equals, text = "=", rest.pop(0)
        tidy.append(name + equals + text)
    return tidy


def _one(name: str, texts: Sequence[object]) -> object:
    """The value of a flag; UserError when it is given again with another one."""
    for text in texts[1:]:
        if text != texts[0]:
            both = f"{shown(texts[0])} and as {shown(text)}"
            raise UserError(f"--{name} is given twice, as {both}; give it once")
    return texts[0]


def _value(name: str, text: str) -> object:
    """A flag's parsed value; a key of type text takes the flag's text unparsed."""
    key = find_key(name)
    assert key is not None
    if not text:
        raise UserError(f"{key.flat_name} is given an empty value; leave the flag out, or give null")
    if str in _types(key) and not key.choices:
        return None if text in NULLS else text
    try:
        return parse_value(text)
    except UserError as error:
        raise UserError(f"{key.flat_name} {error}") from None


def _unknown(token: str, parser: argparse.ArgumentParser) -> UserError:
    name = token.partition("=")[0]
    if not name.startswith("-") or name == "--":
        return UserError(f"argument {shown(token)} is not allowed; values follow a flag, as --KEY VALUE")
    key = name.lstrip("-")
    if "." in key and find_key(key.rpartition(".")[2]):
        return UserError(f"{shown(name)} is no flag; write --{key.rpartition('.')[2]}")
    known = [option for option in parser._option_string_actions if "." not in option]
    return unknown_name("flag", name, known, "See --help.")


def parse_flags(
    argv: Sequence[str], prog: str, default: str = DEFAULT_CONFIG, epilog: str | None = None
) -> Options:
    """The options of a command line; -h prints the help and exits.

    Args:
        argv: the words after the program's name.
        prog: the program's name.
        default: the configuration of a command line that names none.
        epilog: at the end of the help.

    Raises:
        UserError: for an unknown flag, a value that is not YAML, a flag given twice with different values.
    """
    asks_help = any(word in ("-h", "--help") for word in argv)
    file = flatten_file(read_yaml(find_config(default))) if asks_help else {}
    parser = build_parser(prog, file, epilog)
    known, extras = parser.parse_known_args(_tidy(argv, parser))
    if extras:
        raise _unknown(extras[0], parser)
    given = {name: texts for name, texts in vars(known).items() if isinstance(texts, list)}
    names_config = "config_file" in given
    config_file = str(_one("config-file", given.pop("config_file", [default])))
    overrides = {name: _one(name, [_value(name, text) for text in texts]) for name, texts in given.items()}
    switches = (known.dry_run, known.overwrite, known.debug)
    return Options(config_file, flatten_overrides(overrides), *switches, names_config)


def load(
    argv: Sequence[str],
    prog: str,
    given: Mapping[str, object] | None = None,
    epilog: str | None = None,
) -> tuple[Options, Resolved]:
    """The options of a command line and its resolved configuration; UserError for a mistake.

    Args:
        argv, prog, epilog: as of `parse_flags`.
        given: values by key or path, as of a sweep; they take precedence over the file, flags over them.
    """
    options = parse_flags(argv, prog, epilog=epilog)
    overrides = {**flatten_overrides(given or {}), **options.overrides}
    if not given and not options.names_config:
        options = replace(options, config_file=default_config(overrides))
    resolved = resolve(read_yaml(find_config(options.config_file)), overrides)
    return replace(options, overrides=overrides), resolved


def default_config(overrides: Mapping[str, object]) -> str:
    """The shipped configuration that a run starts from where none is named.

    That of photos suits a pretrained network on the user's own images, and names one itself.

    Args:
        overrides: by key.
    """
    net, weights = overrides.get("net_name") or PRE_TRAINED, overrides.get("weights") or "default"
    if overrides.get("dataset") == "image_folder" and is_pretrained(str(net), str(weights)):
        return PHOTOS_CONFIG
    return DEFAULT_CONFIG
