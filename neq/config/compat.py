"""Keys of the published NEq code's files that neq accepts but does not use.

They are validated and dropped before the schema sees them. Where one contradicts the run, `notes` says so.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from neq.config.catalog import network
from neq.config.schema import Config, Section

# Published name -> the name that neq uses.
SYNONYMS = {"eval_per_epochs": "test_per_epochs"}
# Published key -> its section (None: top level).
SECTION_OF = {
    "wandb_sweep": None,
    "fine_tuning": "net_config",
    "total_num_params": "NEq_config",
    "glob_num_params": "NEq_config",
}


class PublishedKeys(Section):
    """The accepted keys."""

    wandb_sweep: bool = Field(False, description="ignored; W&B sweeps are detected")
    fine_tuning: bool = Field(True, description="ignored; the head is always replaced")
    total_num_params: int | None = Field(None, ge=0, description="ignored; parameters are counted")
    glob_num_params: int | None = Field(
        None, ge=0, description="used as the budget where neither ratio nor budget is given; else ignored"
    )


def without_published_keys(values: Mapping[str, object]) -> dict[str, object]:
    """Nested settings without the published keys, as a run recorded by an older version has them.

    Args:
        values: as read from a run's config.yaml.
    """
    kept: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            kept[key] = {name: item for name, item in value.items() if SECTION_OF.get(name) != key}
        elif SECTION_OF.get(key, key) is not None:
            kept[key] = value
    return kept


def notes(published: PublishedKeys, config: Config) -> list[str]:
    """Log lines for published keys that contradict the run.

    Args:
        published: the keys given.
        config: the resolved configuration.
    """
    neq, net_name = config.NEq_config, config.net_config.net_name
    total = network(net_name).total_weights
    given, found = published, []
    if not given.fine_tuning:
        found.append("ignoring fine_tuning=false: the head is always replaced")
    if total is None:
        redundant = {"total_num_params": given.total_num_params, "glob_num_params": given.glob_num_params}
        return found + [
            f"ignoring {key}={value:,}: the parameters of {net_name} are counted"
            for key, value in redundant.items()
            if value
        ]
    if given.total_num_params not in (None, total):
        found.append(f"ignoring total_num_params={given.total_num_params:,}: {net_name} has {total:,}")
    if neq.budget_unit != "parameters":
        return found
    budget = neq.budget if neq.budget is not None else round((neq.ratio or 0) * total)
    # The published code truncates where a ratio is rounded here: one parameter apart is the same budget.
    if given.glob_num_params is not None and abs(given.glob_num_params - budget) > 1:
        found.append(f"ignoring glob_num_params={given.glob_num_params:,}: the budget is {budget:,}")
    return found
