"""`neq adapt`: a network that learns a labelled source domain, and an unlabelled target domain beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from neq.cli.parsing import Parser
from neq.cli.train import train_from
from neq.config import Options, Resolved, dataset_name, datasets, find_config, parse_flags, read_yaml, resolve
from neq.utils.errors import UserError, shown, unknown_name
from neq.wings.adaptation import METHODS, PREFIX

CONFIG = "adaptation"
# Flags of neq train that the command's own options stand for.
REFUSED = {"objective": "--method", "dataset": "--source", "target": "--target"}


def command(arguments: list[str]) -> int:
    """Trains an adaptation, a run like any other; returns the exit code.

    Args:
        arguments: "adapt", then options, and flags as of `neq train`.
    """
    return train_from(partial(_read, arguments[1:]))


def _read(arguments: list[str]) -> tuple[Options, Resolved]:
    """The run's options and its configuration."""
    own, rest = _parser().parse_known_args(arguments)
    run = parse_flags(rest, "neq adapt", CONFIG)
    for name, instead in REFUSED.items():
        if name in run.overrides:
            raise UserError(f"--{name} is not allowed: give {instead}")
    if own.method not in METHODS:
        raise unknown_name("method", own.method, METHODS)
    source, target = _domain("source", own.source), _domain("target", own.target)
    given: dict[str, object] = {
        "objective": PREFIX + own.method,
        "dataset": source[0],
        "target": target[0],
        "transfer": _transfer(own.source, own.target),
        **({} if source[1] is None else {"root": source[1]}),
        **({} if target[1] is None else {"target_root": target[1]}),
    }
    for name, (_, folder) in (("root", source), ("target_root", target)):
        if name in run.overrides and folder is not None:
            raise UserError(f"--{name} is not allowed beside the folder {shown(folder)}; leave it out")
    if run.overrides.get("select_by", "last") != "last":
        given["use_validation"] = True
    return run, resolve(read_yaml(find_config(run.config_file)), {**given, **run.overrides})


def _transfer(source: str, target: str) -> str:
    """SOURCE-TARGET by the last names that tell them apart: amazon/images and webcam/images differ above."""
    first, second = Path(source).absolute().parts, Path(target).absolute().parts
    while first != second and len(first) > 2 < len(second) and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    return f"{first[-1]}-{second[-1]}"


def _domain(flag: str, named: str) -> tuple[str, str | None]:
    """The data set of a name, a folder or an .npz file, and its root; none for a name.

    Raises:
        UserError: it is none of them.
    """
    if any(named in (name, *entry.aliases) for name, entry in datasets().items()):
        return dataset_name(named), None
    if Path(named).expanduser().is_dir():
        return "image_folder", named
    if named.endswith(".npz"):
        return "npz", named
    raise UserError(
        f"--{flag} {shown(named)} is neither a folder nor a data set by name; allowed: a folder with "
        "CLASS/* or train/CLASS/* and test/CLASS/*, an .npz file, or a name that neq datasets lists"
    )


def _parser() -> Parser:
    parser = Parser(
        prog="neq adapt",
        usage="neq adapt --source DIR|NAME --target DIR|NAME [--method NAME] [--resume] [--KEY VALUE ...]",
        description="Train a network on a labelled source domain and adapt it to a target domain whose "
        "labels are only tested on. Classes are matched by name. Further flags are those of neq train; their "
        f"defaults: configuration {CONFIG!r}.",
    )
    add = parser.add_argument
    places = "folder with CLASS/* or train/CLASS/* and test/CLASS/*, .npz file, or data set by name"
    add("--source", required=True, metavar="DIR|NAME", help=f"labelled images: {places}")
    add("--target", required=True, metavar="DIR|NAME", help="images without labels: likewise")
    add("--method", default="mcc", metavar="NAME", help=f"{', '.join(METHODS)} (default: mcc)")
    return parser
