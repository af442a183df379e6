"""`neq cost`: the cost of a training step, by layer and in total, beside full training."""

from __future__ import annotations

from neq.config import POLICIES, Config, Options, Policy, find_config, parse_flags, read_yaml, resolve, scheme
from neq.config.flags import default_config


def command(arguments: list[str]) -> int:
    """Prints the cost of a step; returns the exit code.

    Args:
        arguments: "cost", then flags as of `neq train`. A scheme alone is shown on its own network.
    """
    options = parse_flags(arguments[1:], "neq cost")
    overrides = {**_network_of_scheme(options), **options.overrides}
    file = options.config_file if options.names_config else default_config(overrides)
    resolved = resolve(read_yaml(find_config(file)), overrides)
    from neq.experiment.cost_report import cost_report
    from neq.utils.console import Console

    console = Console()
    for line in resolved.notes:
        console.note(line)
    for part in cost_report(resolved.config, _policy(options, resolved.config)):
        console.print(part, highlight=False)
    return 0


def _network_of_scheme(options: Options) -> dict[str, object]:
    """The network of a scheme that is given without a network or a file that names one."""
    given = options.overrides.get("scheme")
    if given is None or "net_name" in options.overrides or options.names_config:
        return {}
    own = scheme(str(given)).network
    return {} if own is None else {"net_name": own}


def _policy(options: Options, config: Config) -> Policy:
    """The policy that chooses the neurons of the step.

    That of most epochs if it can choose before training, else that of the first epoch. Where a scheme with
    lists is given, and no policy by a flag or a file, it is the one that takes lists.
    """
    neq, asked = config.NEq_config, options.overrides.keys()
    no_policy = not options.names_config and not asked & {"neuron_selection", "initialization"}
    if no_policy and "scheme" in asked and config.backward_config.manual_weight_idx:
        return next(each for each in POLICIES.values() if each.needs == "lists")
    main = POLICIES[neq.neuron_selection]
    return main if main.may_initialize else POLICIES[neq.initialization]
