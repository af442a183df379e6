"""The policies that rank neurons: one registry, read by configuration, budget, training and results.

A policy is one object here and one module with its scores. The module is imported when it first scores, so
that listing policies, or refusing an unknown one, does not load torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from neq.utils.errors import shown, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from neq.selection.state import SelectionState

Need = Literal["lists", "velocity", "gradients", "importance"]
# Needs that the trainer measures.
_MEASURED = ("velocity", "gradients", "importance")


@dataclass(frozen=True)
class Policy:
    """How an epoch's neurons are ranked. Budgets, freezing and counting are the same for every policy.

    Args:
        name: as settings give it.
        module: import path of the module that scores: `score(state)`, and `value(state)` where the score is
            already a value per cost.
        is_static: whether the first choice stays for the whole run, unless `choose_every` is set.
        needs: what must be known before it can score: "lists" (of a scheme, which then are its choice),
            "velocity", "gradients" or "importance" (measured by the trainer).
        units: which kinds of channels it can rank, as the setting `unit` names them.
        trains_biases: whether the biases that a scheme lists train too.
        may_initialize: whether it can choose the neurons of the first epoch, before anything is measured.
        settings: keys of the configuration that matter under this policy alone.
        measures_once: whether importance is measured before its first choice alone, not before each.
        initial_steps: that the epochs before its first choice should have together; it is at least one epoch,
            and at most three eighths of all.
        defaults: settings that choosing this policy brings where they are not given beside it.
        chooses: whether it ever chooses a neuron.

    Raises:
        ValueError: it may initialize, but needs what is measured during training.
    """

    name: str
    module: str
    is_static: bool = False
    needs: Need | None = None
    units: tuple[str, ...] = ("neuron", "input_channel")
    trains_biases: bool = False
    may_initialize: bool = False
    settings: tuple[str, ...] = ()
    measures_once: bool = False
    initial_steps: int = 1
    defaults: Mapping[str, object] = field(default_factory=dict, hash=False)
    chooses: bool = True

    def __post_init__(self) -> None:
        if self.may_initialize and self.needs in _MEASURED:
            raise ValueError(
                f"policy {shown(self.name)} needs {self.needs} and cannot choose the first epoch's neurons: "
                "nothing is measured before that epoch; leave may_initialize out"
            )

    def score(self, state: SelectionState) -> Tensor:
        """What neurons are ranked by, the largest first, float64 [N]; -inf is never chosen."""
        scores: Tensor = import_module(self.module).score(state)
        return scores

    def value(self, state: SelectionState, scores: Tensor) -> Tensor:
        """What choosing each neuron is worth, whatever it costs, float64 [N]; its score where that says it.

        Args:
            state: what the policy looks at.
            scores: as `score` returned them.
        """
        module = import_module(self.module)
        values: Tensor = module.value(state) if hasattr(module, "value") else scores
        return values


_REGISTRY: dict[str, Policy] = {}
# All policies by name. Their order is that of tables, legends and colours.
POLICIES: Mapping[str, Policy] = MappingProxyType(_REGISTRY)


def register(policy: Policy) -> None:
    """Adds a policy: settings accept its name from here on, in this process.

    Raises:
        ValueError: another policy has that name.
    """
    if _REGISTRY.setdefault(policy.name, policy) != policy:
        raise ValueError(f"there is a policy {shown(policy.name)} already; take another name")


def policy(name: str) -> Policy:
    """The policy of that name.

    Raises:
        UserError: an unknown name.
    """
    if name not in POLICIES:
        raise unknown_name("policy", name, POLICIES)
    return POLICIES[name]


def initializers() -> tuple[str, ...]:
    """The policies that can choose the first epoch's neurons."""
    return tuple(name for name, each in POLICIES.items() if each.may_initialize)


register(
    Policy(
        "SU",
        "neq.selection.su",
        is_static=True,
        needs="lists",
        trains_biases=True,
        may_initialize=True,
        settings=("n_bias_update", "manual_weight_idx", "weight_update_ratio"),
    )
)
register(
    Policy(
        "velocity",
        "neq.selection.velocity",
        needs="velocity",
        units=("neuron",),
        settings=("velocity_mu", "velocity_rule", "velocity_images", "use_validation_for_velocity"),
    )
)
register(Policy("random", "neq.selection.random", may_initialize=True))
register(Policy("full", "neq.selection.full", is_static=True, may_initialize=True))
register(Policy("taylor", "neq.selection.taylor", needs="gradients"))
register(Policy("head", "neq.selection.head", is_static=True, may_initialize=True, chooses=False))
register(Policy("last", "neq.selection.last", is_static=True, may_initialize=True))
_MEASURING = ("importance", "importance_batches")
_AFTER_HEAD = {"initialization": "head", "norm_mode": "frozen"}
# Before a head has fitted, importance is that of a random head, and a low rate is all that a search finds.
_HEAD_STEPS = 50
register(
    Policy(
        "auto",
        "neq.selection.auto",
        is_static=True,
        needs="importance",
        settings=_MEASURING,
        initial_steps=_HEAD_STEPS,
        defaults={**_AFTER_HEAD, "cost_aware": True},
    )
)
for _drawing in ("trady", "medyate"):
    register(
        Policy(
            _drawing,
            f"neq.selection.{_drawing}",
            needs="importance",
            settings=(*_MEASURING, "layer_share"),
            measures_once=True,
            initial_steps=_HEAD_STEPS,
            defaults=_AFTER_HEAD,
        )
    )
register(
    Policy(
        "none",
        "neq.selection.head",
        is_static=True,
        may_initialize=True,
        defaults={"initialization": "none", "train_head": False},
        chooses=False,
    )
)
