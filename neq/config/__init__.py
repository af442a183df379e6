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
from neq.config.keys import config_model, register_section, section_of
from neq.config.policies import POLICIES, Policy, register
from neq.config.reading import configs_folder, find_config, parse_value, read_yaml
from neq.config.resolve import Resolved, resolve, stored_config
from neq.config.schema import (
    WEIGHTS_BY_NAME,
    BackwardConfig,
    Config,
    DataProvider,
    MeanStd,
    NEqConfig,
    NetConfig,
    NormMode,
    PolicyName,
    RunSettings,
)
from neq.config.wandb_values import in_wandb_sweep, own_flags, wandb_values
from neq.config.writing import to_mapping, to_yaml
from neq.utils.errors import UserError, shown, unknown_name

__all__ = [
    "POLICIES",
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
    "PolicyName",
    "Resolved",
    "RunSettings",
    "SchemeEntry",
    "UserError",
    "config_model",
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
    "register",
    "register_section",
    "resolve",
    "scheme",
    "schemes",
    "section_of",
    "shown",
    "stored_config",
    "to_mapping",
    "to_yaml",
    "unknown_name",
    "wandb_values",
]
