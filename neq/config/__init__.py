"""What a run is: its settings, where they come from, and what makes two runs the same."""

from neq.config.catalog import (
    PRE_TRAINED,
    DatasetEntry,
    NetworkEntry,
    SchemeEntry,
    dataset,
    dataset_name,
    datasets,
    network,
    networks,
    scheme,
    schemes,
)
from neq.config.flags import Options, load, parse_flags
from neq.config.reading import configs_folder, find_config, parse_value, read_yaml
from neq.config.resolve import Resolved, resolve
from neq.config.schema import (
    WEIGHTS_BY_NAME,
    BackwardConfig,
    Config,
    DataProvider,
    MeanStd,
    NEqConfig,
    NetConfig,
    NormMode,
    Policy,
    RunSettings,
)
from neq.config.wandb_values import by_path, in_wandb_sweep, own_flags, wandb_values
from neq.config.writing import to_mapping, to_yaml
from neq.utils.errors import UserError, shown, unknown_name

__all__ = [
    "PRE_TRAINED",
    "WEIGHTS_BY_NAME",
    "BackwardConfig",
    "Config",
    "DataProvider",
    "DatasetEntry",
    "MeanStd",
    "NEqConfig",
    "NetConfig",
    "NetworkEntry",
    "NormMode",
    "Options",
    "Policy",
    "Resolved",
    "RunSettings",
    "SchemeEntry",
    "UserError",
    "by_path",
    "configs_folder",
    "dataset",
    "dataset_name",
    "datasets",
    "find_config",
    "in_wandb_sweep",
    "load",
    "network",
    "networks",
    "own_flags",
    "parse_flags",
    "parse_value",
    "read_yaml",
    "resolve",
    "scheme",
    "schemes",
    "shown",
    "to_mapping",
    "to_yaml",
    "unknown_name",
    "wandb_values",
]
