"""What the shipped YAML files say about networks, data sets and schemes, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from neq.config.explain import expected
from neq.config.reading import configs_folder, read_yaml
from neq.config.schema import Augmentation, Indices, MeanStd, Section, Shares
from neq.errors import UserError, shown, unknown_name

Entry = TypeVar("Entry", bound=Section)
Count = Annotated[int, Field(ge=1)]
Row = tuple[Count, Count, Count, Count]


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
    """A network: native input size in pixels, conv weights without the head, and how it is built.

    Either `torchvision` names a function there (`pretrained`: with its weights), or `first` (channels of
    the first conv) and `rows` (expansion, out channels, stride, kernel) are an MCUNet table.
    """

    input_size: Count
    conv_weights: Count
    torchvision: str | None = None
    pretrained: bool = False
    first: Count | None = None
    rows: Annotated[tuple[Row, ...], BeforeValidator(_rows)] = ()


class DatasetEntry(Section):
    """A data set: number of classes (None: counted in the data), augmentation, input normalization.

    `kind` says who brings it; `needs` what a complete copy has: paths with `*` below the data folder, and how
    many files each stands for.
    """

    kind: Literal["builtin", "download", "manual", "own"] = "own"
    classes: Annotated[int, Field(ge=2)] | None = None
    augmentation: Augmentation
    mean_std: MeanStd
    aliases: tuple[str, ...] = ()
    needs: Mapping[str, Count] = {}


class SchemeEntry(Section):
    """A named budget, as a ratio or in parameters, with the SU lists that its network's convs mean."""

    network: str | None = None
    ratio: Annotated[float, Field(ge=0)] | None = None
    budget: Annotated[int, Field(ge=0)] | None = None
    n_bias_update: Annotated[int, Field(ge=0)] = 0
    manual_weight_idx: Indices = ()
    weight_update_ratio: Shares = ()

    @model_validator(mode="after")
    def _consistent(self) -> SchemeEntry:
        check_lists(self.manual_weight_idx, self.weight_update_ratio)
        if self.ratio is not None and self.budget is not None:
            raise ValueError("a scheme has a ratio or a budget, not both")
        return self


def read_entries(file_name: str, kind: type[Entry]) -> dict[str, Entry]:
    """The entries of one shipped file.

    Raises:
        UserError: naming the file and the entry, when one is wrong.
    """
    path = configs_folder() / file_name
    entries = {}
    for name, value in read_yaml(path).items():
        try:
            entries[name] = kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join([name, *map(str, first["loc"])])
            raise UserError(f"file {shown(str(path))}, {where}: {expected(first)}") from None
    return entries


@cache
def networks() -> Mapping[str, NetworkEntry]:
    """Every network."""
    return read_entries("networks.yaml", NetworkEntry)


@cache
def datasets() -> Mapping[str, DatasetEntry]:
    """Every data set, by its canonical name."""
    return read_entries("datasets.yaml", DatasetEntry)


@cache
def schemes() -> Mapping[str, SchemeEntry]:
    """Every scheme."""
    return read_entries("schemes.yaml", SchemeEntry)


def network(name: str) -> NetworkEntry:
    """The network of that name; UserError when there is none."""
    if name not in networks():
        raise unknown_name("net_name", name, networks(), "See neq networks.")
    return networks()[name]


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
    """The scheme of that name; UserError when there is none."""
    if name not in schemes():
        raise unknown_name("scheme", name, schemes())
    return schemes()[name]
