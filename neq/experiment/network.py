"""The network of a run and its neuron table, and whether network, images and scheme fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

from neq.budget import Budget
from neq.config import PRE_TRAINED, Config, SchemeEntry, network, scheme
from neq.config.budget_rules import at_home
from neq.config.catalog import is_recorded_file
from neq.networks.build import build_network
from neq.networks.heads import head_name
from neq.networks.neurons import NeuronTable, neuron_table
from neq.selection import StaticScheme, listed_parameters
from neq.tasks import task_class
from neq.utils.errors import UserError, first_line

# Changes the network that a run starts from, given its configuration; or returns it as it is.
NetworkRule = Callable[[nn.Module, Config], nn.Module]
_rules: list[NetworkRule] = []


def register_network_rule(rule: NetworkRule) -> None:
    """Adds a rule that every network of a run is passed to, once it is built."""
    if rule not in _rules:
        _rules.append(rule)


def open_network(config: Config, num_classes: int) -> tuple[nn.Module, NeuronTable]:
    """The network of a resolved configuration, and its neurons.

    Raises:
        UserError: a network that is not available or rejects the images, or a scheme that does not fit it.
    """
    net, size = config.net_config, config.data_provider.image_size
    assert size is not None, "image_size is resolved"
    task = task_class(config.objective)
    weights = task.start_weights(config)
    built = build_network(net.net_name, num_classes, config.manual_seed, weights, net.weights_key)
    for rule in _rules:
        built = rule(built, config)
    built = task.prepared(built, config)
    unit, asked = config.NEq_config.unit, config.NEq_config.scheme
    table = _table(net.net_name, built, size, unit)
    # Schemes count output neurons; shares of input channels may round to another sum.
    named = asked is not None and not is_recorded_file(asked)
    if unit == "neuron" and asked is not None and named and at_home(scheme(asked), net.net_name):
        check_scheme(asked, scheme(asked), table)
    return built, table


def outline(net_name: str) -> NeuronTable:
    """The neurons of a network at its native input size, without its weights: nothing is downloaded.

    Raises:
        UserError: an unknown network, or one without selectable layers.
    """
    plain = net_name.removeprefix(PRE_TRAINED)
    try:
        with torch.device("meta"):
            built = build_network(plain, 1000, weights="none")
    except NotImplementedError:  # a few compute with tensors while they are built
        built = build_network(plain, 1000, weights="none").to("meta")
    return _table(net_name, built, network(net_name).input_size, "neuron")


def check_scheme(name: str, entry: SchemeEntry, table: NeuronTable) -> None:
    """Checks the lists and the budget of a scheme against the convs of its own network.

    Args:
        name: of the scheme.
        table: of its network.

    Raises:
        UserError: an index beyond the convs, or a budget that is not the sum of the lists.
    """
    if not entry.manual_weight_idx:
        return
    lists = StaticScheme(entry.manual_weight_idx, entry.weight_update_ratio, entry.n_bias_update)
    try:
        listed = listed_parameters(table, lists)
    except UserError as error:
        raise UserError(f"scheme {name!r} does not fit {entry.network}: {error}") from None
    convs = sum(layer.kind.is_conv for layer in table.layers)
    if entry.n_bias_update > convs:
        raise UserError(
            f"scheme {name!r} does not fit {entry.network}: n_bias_update {entry.n_bias_update} is more than "
            f"its {convs} convs"
        )
    budget = Budget(amount=entry.budget, ratio=entry.ratio).limit(table.total_parameters)
    if listed - budget != entry.known_slip:
        raise UserError(
            f"scheme {name!r} does not fit {entry.network}: its lists give {listed:,} parameters, its budget "
            f"is {budget:,}; correct it in schemes.yaml"
        )


def unselectable(network: nn.Module, table: NeuronTable) -> str:
    """The kinds of modules whose parameters stay frozen: `12 MultiheadAttention, Encoder`."""
    kinds = Counter(type(network.get_submodule(name)).__name__ for name in table.unselectable)
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items())


def _table(net_name: str, built: nn.Module, size: int, unit: str) -> NeuronTable:
    try:
        return neuron_table(built, (3, size, size), head=head_name(built), unit=unit)
    except (RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, UserError):
            raise
        native = network(net_name).input_size
        way_out = "take another network" if size == native else f"give --image_size {native}, its own size"
        raise UserError(
            f"net_name {net_name!r} cannot be run on images of {size} px ({first_line(error)}); {way_out}"
        ) from error
