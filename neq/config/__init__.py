"""What a run is: its settings, where they come from, and what makes two runs the same."""

from importlib import import_module

from neq.config.catalog import (
    PRE_TRAINED,
    DatasetEntry,
    NetworkEntry,
    SchemeEntry,
    data_title,
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
from neq.config.objectives import OBJECTIVES, Objective, register_objective
from neq.config.policies import POLICIES, Policy, register
from neq.config.reading import configs_folder, find_config, read_yaml
from neq.config.resolve import Resolved, resolve, stored_config
from neq.config.schema import (
    WEIGHTS_BY_NAME,
    BackwardConfig,
    Config,
    DataProvider,
    MeanStd,
    NEqConfig,
    PolicyName,
    RunSettings,
)
from neq.config.wandb_values import in_wandb_sweep, own_flags, wandb_values
from neq.config.writing import to_mapping, to_yaml

__all__ = [
    "OBJECTIVES",
    "POLICIES",
    "PRE_TRAINED",
    "WEIGHTS_BY_NAME",
    "BackwardConfig",
    "Config",
    "DataProvider",
    "DatasetEntry",
    "MeanStd",
    "NEqConfig",
    "NetworkEntry",
    "Objective",
    "Options",
    "Policy",
    "PolicyName",
    "Resolved",
    "RunSettings",
    "SchemeEntry",
    "config_model",
    "configs_folder",
    "data_title",
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
    "read_yaml",
    "register",
    "register_objective",
    "register_section",
    "resolve",
    "scheme",
    "schemes",
    "section_of",
    "stored_config",
    "to_mapping",
    "to_yaml",
    "wandb_values",
]

import_module("neq.wings")  # last: they add to the above
