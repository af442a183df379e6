"""What the shipped YAML files say about networks, data sets and schemes, by name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from neq.config.explain import expected
from neq.config.reading import configs_folder, read_yaml
from neq.config.schema import (
    WEIGHTS_BY_NAME,
    Augmentation,
    DataProvider,
    Indices,
    MeanStd,
    Section,
    Shares,
    mean_std_pair,
)
from neq.utils.errors import UserError, shown, unknown_name

Entry = TypeVar("Entry", bound=Section)
Count = Annotated[int, Field(ge=1)]
Row = tuple[Count, Count, Count, Count]

PRE_TRAINED = "pre_trained_"
LIBRARIES = ("torchvision", "timm")
# Prefix of a net_name, `PREFIX:NAME` -> the entry's fields by NAME; those of wings.
_families: dict[str, Callable[[str], Mapping[str, object]]] = {}
# Of those whose networks may start at random: whether NAME starts trained, given the setting `weights`.
_starts_trained: dict[str, Callable[[str, str], bool]] = {}
# The input that the weights of MCUNet's model zoo expect: values in -1 .. 1.
ZOO_INPUT = MeanStd(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
# Hexadecimal digits that stand for a scheme file's content.
_HASH = 10


def check_lists(indices: Sequence[int], shares: Sequence[float]) -> None:
    """Holds the two lists of an SU scheme against each other.

    Args:
        indices: conv indices, manual_weight_idx.
        shares: updated share of each, weight_update_ratio.

    Raises:
        ValueError: when their lengths differ, or the indices do not ascend.
    """
    if len(indices) != len(shares):
        raise ValueError(
            f"manual_weight_idx has {len(indices)} values, weight_update_ratio {len(shares)}; "
            "give as many of both"
        )
    for before, after in pairwise(indices):
        if after <= before:
            raise ValueError(f"manual_weight_idx has {after} after {before}; give it in ascending order")


def _rows(value: object) -> object:
    """`1,16,1,3; 4,16,2,5` is a list of rows."""
    if isinstance(value, str):
        return [row.split(",") for row in value.split(";")]
    return value


class NetworkEntry(Section):
    """A network: native input size in pixels, and how it is built; `pretrained`: with its library's weights.

    Either `torchvision` or `timm` names a network there, or `first` (channels of the first conv) and `rows`
    (expansion, out channels, stride, kernel) are a table; `feature_mix` is the number of channels of a 1x1
    conv behind it, `folded` leaves the norms out and gives the convs a bias. Or `cifar_blocks` is the number
    of blocks in each stage of a CIFAR resnet. Or `builder`, a MODULE:FUNCTION, builds a wing's network,
    given net_name, weights and weights_key; of `PREFIX:PATH`, `file` is the path, which a run records as the
    weights of `PREFIX:file`. As a check the file states `convs`, their weights, and those of Linears other
    than the head; of a library's network that is not in it they are not known before it is built.
    `mean_std`: the input that its weights expect, where that is not the data set's. `zoo`: its checkpoint in
    MCUNet's model zoo, whose batch norms have an eps of `zoo_eps`.
    """

    input_size: Count
    convs: Count | None = None
    conv_weights: Count | None = None
    linear_weights: int = 0
    torchvision: str | None = None
    timm: str | None = None
    builder: str | None = None
    file: str | None = None
    cifar_blocks: Count | None = None
    pretrained: bool = False
    first: Count | None = None
    rows: Annotated[tuple[Row, ...], BeforeValidator(_rows)] = ()
    feature_mix: Count | None = None
    folded: bool = False
    zoo: str | None = None
    zoo_eps: float = 1e-3
    mean_std: Annotated[MeanStd | None, BeforeValidator(mean_std_pair)] = None

    @model_validator(mode="after")
    def _built_one_way(self) -> NetworkEntry:
        ways = (self.torchvision, self.timm, self.builder, self.cifar_blocks, self.first)
        if sum(way is not None for way in ways) != 1 or (self.first is None) != (not self.rows):
            raise ValueError(
                "a network is built from torchvision, from timm, from cifar_blocks, or from first and rows"
            )
        return self

    @property
    def total_weights(self) -> int | None:
        """Weights of all selectable neurons: what a ratio of 1 means; none where it is not stated."""
        return None if self.conv_weights is None else self.conv_weights + self.linear_weights


class DatasetEntry(Section):
    """A data set: number of classes (None: counted in the data), augmentation, input normalization.

    `kind`: how its files arrive. `opener`: the function that opens it, as MODULE:FUNCTION (root -> data set).
    `needs`: the files of a complete copy, as paths with `*` below the data folder, and the number of each.
    `corruptions`: the function that opens it under a corruption, where these are published as files, as
    MODULE:FUNCTION (root, corruption -> data set).
    """

    opener: str
    corruptions: str | None = None
    kind: Literal["builtin", "download", "manual", "own"] = "own"
    classes: Annotated[int, Field(ge=2)] | None = None
    augmentation: Augmentation
    mean_std: MeanStd
    aliases: tuple[str, ...] = ()
    needs: Mapping[str, Count] = {}


class SchemeEntry(Section):
    """A named budget, as a ratio or in parameters, with the SU lists that its network's convs mean.

    `known_slip`: what the lists give beyond the budget, where the source itself is off.
    """

    network: str | None = None
    ratio: Annotated[float, Field(ge=0)] | None = None
    budget: Annotated[int, Field(ge=0)] | None = None
    known_slip: int = 0
    n_bias_update: Annotated[int, Field(ge=0)] = 0
    manual_weight_idx: Indices = ()
    weight_update_ratio: Shares = ()

    @model_validator(mode="after")
    def _consistent(self) -> SchemeEntry:
        check_lists(self.manual_weight_idx, self.weight_update_ratio)
        if self.ratio is not None and self.budget is not None:
            raise ValueError("a scheme has a ratio or a budget, not both")
        if self.manual_weight_idx and self.network is None:
            raise ValueError("a scheme with lists states the network whose convs they mean")
        return self


def read_entries(file_name: str, kind: type[Entry]) -> dict[str, Entry]:
    """The entries of one shipped file.

    Raises:
        UserError: naming the file and the entry, when one is wrong.
    """
    path = configs_folder() / file_name
    return {name: _entry(path, kind, value, [name]) for name, value in read_yaml(path).items()}


def _entry(path: Path, kind: type[Entry], value: object, where: Sequence[str] = ()) -> Entry:
    """An entry of a file; `where` it stands in it."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join([*where, *map(str, first["loc"])])
        at = f", {place}" if place else ""
        raise UserError(f"file {shown(str(path))}{at}: {expected(first)}") from None


@cache
def networks() -> Mapping[str, NetworkEntry]:
    """Every network with a name of its own; those of a library or the zoo also as PRE_TRAINED + name."""
    entries = read_entries("networks.yaml", NetworkEntry)
    pretrained = {
        PRE_TRAINED + name: entry.model_copy(
            update={"pretrained": True, "mean_std": ZOO_INPUT if entry.zoo else entry.mean_std}
        )
        for name, entry in entries.items()
        if entry.torchvision or entry.timm or entry.zoo
    }
    return entries | pretrained


@cache
def datasets() -> Mapping[str, DatasetEntry]:
    """Every data set, by its canonical name."""
    return read_entries("datasets.yaml", DatasetEntry)


@cache
def schemes() -> Mapping[str, SchemeEntry]:
    """Every scheme."""
    return read_entries("schemes.yaml", SchemeEntry)


def network(name: str) -> NetworkEntry:
    """The network of that name; UserError when there is none.

    Args:
        name: of the shipped file, or `torchvision:NAME` or `timm:NAME` for any network of these libraries;
            PRE_TRAINED before it asks for the library's weights. Or `PREFIX:NAME` of a wing.
    """
    prefix, _, of_wing = name.partition(":")
    if prefix in _families:
        return NetworkEntry.model_validate(_families[prefix](of_wing))
    return _network(name)


@cache
def _network(name: str) -> NetworkEntry:
    if name in networks():
        return networks()[name]
    plain = name.removeprefix(PRE_TRAINED)
    if plain in networks():
        raise UserError(
            f"net_name {name!r}: {plain!r} has no weights to download; take {plain!r}, a random start"
        )
    library, _, model = plain.partition(":")
    if library not in LIBRARIES:
        raise unknown_name("net_name", name, networks(), "See neq networks.")
    # Only here: asking a library takes seconds.
    from neq.config.libraries import describe

    return NetworkEntry.model_validate(describe(library, model, pretrained=plain != name))


def stored_input(path: Path, advice: str) -> dict[str, object]:
    """The fields `input_size` and `mean_std` of the network of a run.

    Args:
        path: the run's configuration.
        advice: what to do where it is damaged.

    Raises:
        UserError: it is damaged.
    """
    settings = read_yaml(path).get("data_provider")
    try:
        if not isinstance(settings, Mapping):
            raise KeyError("data_provider")
        asked = {name: settings[name] for name in ("image_size", "mean_std")}
        data = DataProvider.model_validate(asked)
    except (KeyError, ValidationError):
        data = None
    if data is None or data.image_size is None:
        raise UserError(f"{path} is damaged; {advice}")
    return {"input_size": data.image_size, "mean_std": data.mean_std}


def register_family(
    prefix: str,
    describe: Callable[[str], Mapping[str, object]],
    starts_trained: Callable[[str, str], bool] | None = None,
) -> None:
    """Adds the networks `PREFIX:NAME` of a wing.

    Args:
        prefix: that no other family has.
        describe: returns the fields of NAME's entry, with `builder`; raises UserError where there is none.
        starts_trained: returns, of NAME and the setting `weights`, whether the network starts from trained
            weights; none: by default, and from a file.

    Raises:
        ValueError: the prefix is taken.
    """
    if prefix in LIBRARIES or _families.setdefault(prefix, describe) is not describe:
        raise ValueError(f"networks {prefix}:NAME are registered already; choose another prefix")
    if starts_trained is not None:
        _starts_trained[prefix] = starts_trained


def plain_network(name: str) -> str:
    """The name without `pre_trained_`, `_folded` and the prefix of a wing: the same convs and indices."""
    prefix, _, of_wing = name.partition(":")
    plain = of_wing if prefix in _families else name
    return plain.removeprefix(PRE_TRAINED).removesuffix("_folded")


def is_pretrained(net_name: str, weights: str) -> bool:
    """Whether a network starts from trained weights.

    Args:
        net_name: of the network.
        weights: as the setting gives them: default, none, or a file.
    """
    prefix, _, name = net_name.partition(":")
    if prefix in _starts_trained:
        return _starts_trained[prefix](name, weights)
    has_weights = net_name.startswith(PRE_TRAINED) or prefix in _families
    return weights not in WEIGHTS_BY_NAME or (weights == "default" and has_weights)


def data_title(name: str, root: str | None) -> str:
    """What titles call a data set: one of the user's own by its folder or file, every other by its name.

    Args:
        name: of the data set.
        root: its folder or file.
    """
    if root is None or dataset(name).kind != "own":
        return name
    place = Path(root).expanduser().resolve()
    return place.name if place.is_dir() else place.stem or name


def dataset_name(name: str) -> str:
    """The canonical name of a data set that is given by name or alias; UserError when there is none."""
    known = datasets()
    if name in known:
        return name
    aliases = {alias: canonical for canonical, entry in known.items() for alias in entry.aliases}
    if name not in aliases:
        raise unknown_name("dataset", name, [*known, *aliases], "See neq datasets.")
    return aliases[name]


def dataset(name: str) -> DatasetEntry:
    """The data set of that name or alias; UserError when there is none."""
    return datasets()[dataset_name(name)]


def scheme(name: str) -> SchemeEntry:
    """The scheme of that name, or in that YAML file; UserError when there is none.

    Args:
        name: of a shipped scheme, or the path of a file with the fields of one.
    """
    if name in schemes():
        return schemes()[name]
    if not _is_file(name):
        hint = "Give one of these names or the path of a .yaml file."
        raise unknown_name("scheme", name, schemes(), hint)
    path = Path(name).expanduser()
    entry = _entry(path, SchemeEntry, read_yaml(path))
    if entry.network is not None:
        network(entry.network)  # raises where there is none of that name
    return entry


def recorded_scheme(name: str) -> str:
    """What a run records as its scheme: a name as it is, a file by its name and a hash of its content.

    So the run stays the same wherever the file lies, and is read without it: the lists and the budget are
    recorded beside it.
    """
    if not _is_file(name):
        return name
    content = json.dumps(scheme(name).model_dump(mode="json"), sort_keys=True)
    stem = re.sub(r"[^A-Za-z0-9._+-]", "_", Path(name).stem)
    return f"{stem}@{hashlib.sha256(content.encode()).hexdigest()[:_HASH]}"


def is_recorded_file(name: str) -> bool:
    """Whether a scheme's name is what `recorded_scheme` makes of a file."""
    return re.fullmatch(rf".+@[0-9a-f]{{{_HASH}}}", name) is not None


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))
