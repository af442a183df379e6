"""`neq cost`: what a training step costs, by layer and in total, beside full training; nothing is trained."""

from __future__ import annotations

from dataclasses import replace

from neq.config import POLICIES, Config, Options, Policy, find_config, parse_flags, read_yaml, resolve, scheme
from neq.config.flags import DEFAULT_CONFIG


def command(arguments: list[str]) -> int:
    """Prints the cost of a step; gives the exit code.

    Args:
        arguments: "cost", then flags as of `neq train`. A scheme alone is shown on its own network.
    """
    options = parse_flags(arguments[1:], "neq cost")
    overrides = {**_network_of_scheme(options), **options.overrides}
    resolved = resolve(read_yaml(find_config(options.config_file)), overrides)
    from neq.utils.console import Console

    console = Console()
    for note in resolved.notes:
        console.print(f"neq: {note}", style="dim", highlight=False, markup=False)
    for part in _report(resolved.config, _policy(options, resolved.config)):
        console.print(part, highlight=False)
    return 0


def _network_of_scheme(options: Options) -> dict[str, object]:
    """A scheme that is given without a network, and without a file that names one, is asked of its own."""
    given = options.overrides.get("scheme")
    if given is None or "net_name" in options.overrides or options.config_file != DEFAULT_CONFIG:
        return {}
    own = scheme(str(given)).network
    return {} if own is None else {"net_name": own}


def _policy(options: Options, config: Config) -> Policy:
    """The policy whose choice is counted.

    That of most epochs if it can choose before training, else that of the first epoch; where a scheme with
    lists is given and no policy, the one that takes them.
    """
    neq, asked = config.NEq_config, options.overrides.keys()
    if "scheme" in asked and config.backward_config.manual_weight_idx:
        of_lists = [each for each in POLICIES.values() if each.needs == "lists"]
        if not asked & {"neuron_selection", "initialization"}:
            return of_lists[0]
    main = POLICIES[neq.neuron_selection]
    return main if main.may_initialize else POLICIES[neq.initialization]


def _report(config: Config, policy: Policy) -> list[object]:
    """A table by layer and a table of totals."""
    import torch
    from rich.table import Table

    from neq.backward import trainable_slices
    from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec, amount_shown, marginal_costs
    from neq.budget.cost_model import input_gradient_macs
    from neq.experiment.network import open_network
    from neq.selection import SelectionState, StaticScheme, bias_layers
    from neq.utils.console import figures_table, short
    from neq.utils.seeds import generator

    data, neq = config.data_provider, config.NEq_config
    size, batch = data.image_size, data.base_batch_size
    network, table = open_network(config, data.new_num_classes or 10)
    network.to(memory_format=torch.channels_last)
    scheme = StaticScheme.of_config(config.backward_config)
    biases = bias_layers(table, scheme) if scheme is not None and policy.trains_biases else ()
    spec = StepSpec.of_config(config, (batch,), biases)
    model = CostModel(network, table, spec)
    allocator = BudgetAllocator(model, Budget.of_config(neq))
    state = SelectionState(table, network, generator(config.manual_seed, "selection", 0), scheme)
    choice = allocator.choose(policy, state, neq.cost_aware)
    selection = table.selection(choice.chosen)
    ours = model.step(selection)
    everything = table.selection(torch.ones(len(table), dtype=torch.bool))
    stock = replace(spec, norm_mode="train", saved_precision="exact", bias_layers=())
    full = CostModel(network, table, stock).step(everything)

    by_layer = figures_table(
        "layer",
        (
            *("chosen", "weights", "MACs forward", "MACs input grad", "MACs weight grad"),
            *("bytes each", "bytes to open", "bytes kept"),
        ),
        f"{config.net_config.net_name}, {size} px, batch {batch}: a step by layer",
    )
    passed_on = input_gradient_macs(table, trainable_slices(network, table, selection, neq.norm_mode, biases))
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
    for name, (mine, theirs) in rows.items():
        totals.add_row(name, f"{mine:,}", f"{theirs:,}", f"{mine / theirs:.3f}" if theirs else "")
    return [by_layer, totals]
