"""The cost of a training step, as tables; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from rich.table import Table
from torch import nn

from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec, amount_shown, marginal_costs
from neq.budget.cost_model import input_gradient_macs
from neq.config import Config, Policy
from neq.experiment.network import open_network
from neq.networks.parameter_slice import ParameterSlice
from neq.selection import SelectionState, StaticScheme, bias_layers
from neq.tasks import task_class
from neq.training.step_times import device_latency, step_time_line
from neq.utils.console import figures_table, short
from neq.utils.device import pick_device
from neq.utils.seeds import generator

# Further rows of the totals by name, in whole numbers, of a network in which some parameters train.
CostRows = Callable[[nn.Module, Mapping[str, ParameterSlice], StepSpec], Mapping[str, int]]
_rows: list[CostRows] = []


def register_cost_rows(rows: CostRows) -> None:
    """Adds rows to the totals of networks that they are for; of others a wing returns none."""
    if rows not in _rows:
        _rows.append(rows)


def cost_report(config: Config, policy: Policy) -> list[Table]:
    """The cost of a step by layer, and its totals beside those of full training.

    Args:
        config: resolved.
        policy: chooses the neurons of the step.
    """
    data, neq = config.data_provider, config.NEq_config
    size, batch = data.image_size, data.base_batch_size
    network, table = open_network(config, data.new_num_classes or 10)
    network.to(memory_format=torch.channels_last)
    scheme = StaticScheme.of_config(config.backward_config)
    biases = bias_layers(table, scheme) if scheme is not None and policy.trains_biases else ()
    passes = tuple(batch * batches for batches in task_class(config.objective).passes(config))
    spec = StepSpec.of_config(config, passes, biases)
    model = CostModel(network, table, spec)
    latency = None
    if neq.budget_unit == "time":
        latency = device_latency(model, pick_device(config.device), config.memory)
    times = None if latency is None else partial(latency.times, model)
    allocator = BudgetAllocator(model, Budget.of_config(neq), times)
    state = SelectionState(table, network, generator(config.manual_seed, "selection", 0), scheme)
    choice = allocator.choose(policy, state, neq.cost_aware)
    selection = table.selection(choice.chosen)
    ours = model.step(selection)
    everything = table.selection(torch.ones(len(table), dtype=torch.bool))
    stock = replace(spec, norm_mode="train", saved_precision="exact", bias_layers=(), train_head=True)
    full = CostModel(network, table, stock).step(everything)

    by_layer = figures_table(
        "layer",
        (
            *("chosen", "weights", "MACs forward", "MACs input grad", "MACs weight grad"),
            *("bytes each", "bytes to open", "bytes kept"),
        ),
        f"{config.net_config.net_name}, {size} px, batch {batch}: a step by layer",
    )
    parts = spec.trainable_slices(network, table, selection)
    passed_on = input_gradient_macs(table, parts)
    marginal, kept = marginal_costs(model, "bytes"), model.kept(selection).bytes_by_layer()
    for number, layer in enumerate(table.layers):
        chosen = len(selection.get(layer.name, ()))
        numbers = (
            chosen * layer.parameters,
            batch * layer.neurons * layer.macs,
            batch * passed_on[layer.name],
            batch * chosen * layer.macs,
            int(marginal.neuron[table.slice_of(layer.name).start]),
            int(marginal.opening[number]),
            kept.get(layer.name, 0),
        )
        share = f"{chosen}/{layer.neurons}"
        by_layer.add_row(layer.name, share, *map(short, numbers))

    used, limit = (amount_shown(amount, choice.unit) for amount in (choice.used, choice.limit))
    settings = f"{policy.name}, norm mode {spec.norm_mode}, {spec.optimizer}, {spec.precision}"
    totals = Table(title=f"{settings}: {used} of a budget of {limit}")
    totals.caption = None if latency is None else step_time_line(allocator, latency)
    totals.add_column("a step")
    for name in ("this run", "full training", "ratio"):
        totals.add_column(name, justify="right")
    rows = {
        "updated parameters": (ours.parameters, full.parameters),
        "everything that trains": (ours.values, full.values),
        "MACs forward": (ours.forward_macs, full.forward_macs),
        "MACs of input gradients": (ours.input_gradient_macs, full.input_gradient_macs),
        "MACs of weight gradients": (ours.weight_gradient_macs, full.weight_gradient_macs),
        "MACs in all": (ours.macs, full.macs),
        "bytes kept for backward": (ours.saved_bytes, full.saved_bytes),
        "bytes of gradients": (ours.gradient_bytes, full.gradient_bytes),
        "bytes of optimizer state": (ours.optimizer_bytes, full.optimizer_bytes),
        "bytes of training memory": (ours.training_bytes, full.training_bytes),
    }
    all_parts = stock.trainable_slices(network, table, everything)
    for more in _rows:
        found, of_all = (more(network, trained, spec) for trained in (parts, all_parts))
        rows |= {name: (found[name], of_all[name]) for name in found}
    for name, (mine, theirs) in rows.items():
        totals.add_row(name, f"{mine:,}", f"{theirs:,}", f"{mine / theirs:.3f}" if theirs else "")
    return [by_layer, totals]
