"""The configurations of a training step that a plan chooses among: what trains, and how it is kept.

Two configurations with the same selection, norm rule and saved precision learn the same; micro-batch, cuts
and memory setting change only what that costs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from neq.config import POLICIES, Config
from neq.config.catalog import is_pretrained
from neq.config.keys import flatten_file
from neq.utils.errors import UserError

NormMode = Literal["train", "frontier", "frozen"]
# Settings that fix what trains: a plan then compares no shares.
SELECTING = ("neuron_selection", "budget", "ratio", "scheme", "manual_weight_idx", "weight_update_ratio")
# Settings that a plan chooses unless they are given.
PLANNED = (
    *SELECTING,
    *("norm_mode", "ghost_batch_size", "saved_precision", "micro_batch_size", "checkpoint_segments"),
)
# Settings that a plan always chooses, for which nothing can be given.
DECIDED = ("checkpoint_cuts", "test_batch_size")
# Images of ghost batches that are compared, where the user names none.
GHOSTS = (32, 16)


@dataclass(frozen=True)
class NormRule:
    """Which images batch norms see the statistics of.

    Args:
        norm_mode: of the run.
        ghost_batch: images of a group; None: those that pass through at once.
    """

    norm_mode: NormMode
    ghost_batch: int | None = None

    def admits(self, micro_batch: int, batch_size: int) -> bool:
        """Whether a micro-batch learns what the whole batch does: it is that, or norms do not see it.

        Args:
            micro_batch, batch_size: in images.
        """
        if micro_batch == batch_size or self.norm_mode == "frozen":
            return True
        ghost = self.ghost_batch
        return ghost is not None and micro_batch % ghost == 0 and batch_size % micro_batch == 0


@dataclass(frozen=True)
class Learning:
    """What a configuration learns: only costs within one of these can be compared.

    Args:
        share: of the work of full training's backward pass that the selection does, 0 to 1; None: the
            selection is the one that the run's settings name.
        norm_rule: of its batch norms.
        saved_precision: "exact" or "bf16".
    """

    share: float | None
    norm_rule: NormRule
    saved_precision: str = "exact"


@dataclass(frozen=True)
class Configuration:
    """One way to run a training step.

    Args:
        learning: what it learns.
        micro_batch: images that pass through at once.
        segments: most segments that the network is cut into.
        memory: "fast" or "tight".
    """

    learning: Learning
    micro_batch: int
    segments: int = 1
    memory: str = "fast"


@dataclass(frozen=True)
class Space:
    """The configurations that are compared.

    Args:
        batch_size: images of a step.
        shares: of Learning, highest first; (None,): the run's own selection.
        norm_rules: preferred ones first.
        saved_precisions: the same.
        segments: numbers of them.
        memories: memory settings, preferred ones first.
        micro_batches: sizes, whose statistics norms may see; none: halves of the batch down to one image, and
            the ghost batches.
    """

    batch_size: int
    shares: Sequence[float | None] = (1.0, 0.5, 0.25, 0.1, 0.03)
    norm_rules: Sequence[NormRule] = (NormRule("frozen"),)
    saved_precisions: Sequence[str] = ("exact", "bf16")
    segments: Sequence[int] = (1, 2, 3, 4, 6)
    memories: Sequence[str] = ("fast", "tight")
    micro_batches: Sequence[int] = ()

    @property
    def learnings(self) -> Iterator[Learning]:
        """What the configurations learn, the preferred first: large shares, then by the given orders."""
        for share, rule, precision in product(self.shares, self.norm_rules, self.saved_precisions):
            yield Learning(share, rule, precision)

    def configurations(self, learning: Learning) -> Iterator[Configuration]:
        """Those that learn one thing, large micro-batches and few segments first."""
        rule = learning.norm_rule
        is_asked_for = bool(self.micro_batches) and rule.ghost_batch is None
        sizes = [size for size in self._sizes() if is_asked_for or rule.admits(size, self.batch_size)]
        for size, count, memory in product(sizes, self.segments, self.memories):
            yield Configuration(learning, size, count, memory)

    def _sizes(self) -> list[int]:
        """Micro-batches, the largest first."""
        if self.micro_batches:
            return sorted(self.micro_batches, reverse=True)
        sizes = {self.batch_size}
        while (least := min(sizes)) > 1:
            sizes.add(-(-least // 2))
        for rule in self.norm_rules:
            if rule.ghost_batch is not None:
                sizes.add(rule.ghost_batch)
        return sorted(sizes, reverse=True)


def with_policy(base: Mapping[str, object], overrides: Mapping[str, object]) -> dict[str, object]:
    """The overrides of a planned run, by the policy auto where none is given.

    Args:
        base: the file that the run starts from; what selects in it counts as not given.
        overrides: settings that are given.
    """
    if not overrides.keys().isdisjoint(SELECTING):
        return dict(overrides)
    chosen = {**overrides, "neuron_selection": "auto"}
    net = {**flatten_file(base), **chosen}
    if not is_pretrained(str(net.get("net_name")), str(net.get("weights") or "default")):
        # Frozen norms, which auto brings, need statistics of images.
        chosen.setdefault("norm_mode", "frontier")
    return chosen


def check_planned(config: Config, given: Collection[str]) -> None:
    """Checks that the configurations of a run can be estimated.

    Args:
        config: of the run.
        given: settings that the plan does not change.

    Raises:
        UserError: they cannot.
    """
    neq, policy = config.NEq_config, POLICIES[config.NEq_config.neuron_selection]
    is_fixed = any(name in given for name in SELECTING)
    if is_fixed and not policy.may_initialize and neq.budget_unit != "bytes":
        raise UserError(
            f"a plan with policy {policy.name} needs a budget in bytes, since it chooses in training; "
            "give --budget SIZE, as 8MiB, or leave out policy and budget"
        )


def settings_of(configuration: Configuration, batch_size: int, cuts: Sequence[str]) -> dict[str, Any]:
    """The run's settings that a configuration stands for, the budget apart.

    Args:
        cuts: layers that its segments begin at.
    """
    learning = configuration.learning
    settings: dict[str, Any] = {
        "norm_mode": learning.norm_rule.norm_mode,
        "saved_precision": learning.saved_precision,
        "memory": configuration.memory,
    }
    if learning.norm_rule.ghost_batch is not None:
        settings["ghost_batch_size"] = learning.norm_rule.ghost_batch
    if configuration.micro_batch < batch_size:
        settings["micro_batch_size"] = settings["test_batch_size"] = configuration.micro_batch
    if cuts:
        settings["checkpoint_cuts"] = list(cuts)
    return settings


def space_of(config: Config, given: Collection[str], batch_size: int, can_give_back: bool) -> Space:
    """The configurations that the flags of a run leave open.

    Args:
        config: resolved.
        given: the settings that were given, which stay as they are.
        batch_size: images of a step.
        can_give_back: whether the memory setting "tight" is available.
    """
    run, neq = config.run_config, config.NEq_config
    fixed: dict[str, Any] = {}
    if any(name in given for name in SELECTING):
        fixed["shares"] = (None,)
    if "saved_precision" in given:
        fixed["saved_precisions"] = (neq.saved_precision,)
    if "checkpoint_segments" in given:
        fixed["segments"] = (run.checkpoint_segments,)
    if "micro_batch_size" in given and run.micro_batch_size is not None:
        fixed["micro_batches"] = (min(run.micro_batch_size, batch_size),)
    if "memory" in given:
        fixed["memories"] = (config.memory,)
    else:
        fixed["memories"] = ("fast", "tight") if can_give_back else ("fast",)
    return Space(
        batch_size,
        norm_rules=tuple(_norm_rules(config, given, batch_size)),
        **fixed,
    )


def _norm_rules(config: Config, given: Collection[str], batch_size: int) -> Iterator[NormRule]:
    """Frozen norms first, where they have statistics of images; groups behind whole batches."""
    own, ghost = config.NEq_config.norm_mode, config.run_config.ghost_batch_size
    is_trained = is_pretrained(config.net_config.net_name, config.net_config.weights)
    if own == "frozen" or (is_trained and "norm_mode" not in given and ghost is None):
        yield NormRule("frozen")
        if "norm_mode" in given or not is_trained:
            return
    mode: NormMode = "frontier" if own == "frozen" else own
    if ghost is not None:
        yield NormRule(mode, ghost)
        return
    yield NormRule(mode)
    if batch_size > 1 and "micro_batch_size" not in given:
        yield from (NormRule(mode, size) for size in GHOSTS if size < batch_size and batch_size % size == 0)
