"""The objectives of runs, each with the task that learns it: one registry for every command.

A task's module is imported when a run is built, so that listing objectives, or refusing an unknown one, does
not load torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from neq.utils.errors import shown

if TYPE_CHECKING:  # which reads the objectives
    from neq.config.schema import Config


@dataclass(frozen=True)
class Objective:
    """What a run learns.

    Args:
        name: as settings give it.
        task: MODULE:CLASS of the task, a subclass of `neq.tasks.Task`.
        defaults: settings that choosing it brings where they are not given beside it.
        trains: whether anything of the network trains; where nothing does, a step is a forward pass.
        has_targets: whether the settings of training targets change its loss (`neq.tasks.targets`).
    """

    name: str
    task: str
    defaults: Mapping[str, object] = field(default_factory=dict, hash=False)
    trains: bool = True
    has_targets: bool = False


_REGISTRY: dict[str, Objective] = {}
# Of runs for which a function holds: MODULE:FUNCTION that wraps their task, given it and its inputs.
TASK_RULES: list[tuple[Callable[[Config], bool], str]] = []
# All objectives by name.
OBJECTIVES: Mapping[str, Objective] = MappingProxyType(_REGISTRY)


def register_objective(objective: Objective) -> None:
    """Adds an objective: settings accept its name from here on, in this process.

    Raises:
        ValueError: another objective has that name.
    """
    if _REGISTRY.setdefault(objective.name, objective) != objective:
        raise ValueError(f"there is an objective {shown(objective.name)} already; take another name")


def register_task_rule(applies: Callable[[Config], bool], place: str) -> None:
    """Adds a rule that the task of every run that it applies to is passed to, whatever its objective is.

    Args:
        applies: whether a run's configuration asks for it.
        place: MODULE:FUNCTION, (task, inputs) -> task, imported when it is used.
    """
    if (applies, place) not in TASK_RULES:
        TASK_RULES.append((applies, place))


register_objective(Objective("classification", "neq.tasks.classification:Classification", has_targets=True))
# One pass over unlabelled images, each predicted before it is learned from.
_ONLINE: Mapping[str, object] = {
    "neuron_selection": "none",
    "use_validation": False,
    "augmentation": "none",
    "n_epochs": 1,
    "warmup_epochs": 0,
    "base_lr": 1e-3,
    "lr_schedule_name": "gamma_step",
    "lr_step_size": 30,
    "lr_step_gamma": 1.0,
    "optimizer_name": "adam",
    "weight_decay": 0.0,
}
for _name, _norm_mode in (("tent", "train"), ("statistics", "frontier"), ("source", "frozen")):
    register_objective(
        Objective(
            _name,
            "neq.tasks.entropy:Entropy",
            defaults={**_ONLINE, "norm_mode": _norm_mode},
            trains=_name == "tent",
        )
    )
