"""The specification of a training step: everything but network and selection that its cost depends on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from torch import nn

from neq.backward.ghost_batch_norm import GhostBatches
from neq.backward.plan import Plan
from neq.backward.trainable import trainable_slices
from neq.networks.neurons import NeuronTable, Selection
from neq.networks.parameter_slice import ParameterSlice
from neq.utils.errors import UserError, unknown_name

if TYPE_CHECKING:  # the cost of a step needs no configuration
    from neq.backward.sync_batch_norm import BatchSplit
    from neq.config import Config, RunSettings

# Values of state that an optimizer keeps for each value that trains.
STATE_PER_VALUE = {"sgd": 0, "sgd with momentum": 1, "adam": 2, "adamw": 2}
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class StepSpec:
    """One training step: forward passes, one backward pass (or one for each micro-batch), one update.

    Args:
        forwards: images of each forward pass, all of them kept until backward; the first is the batch, others
            are those of a task with several data loaders.
        image_shape: channels, height, width; batches are in channels_last.
        norm_mode: of the plan: "train", "frontier" or "frozen".
        optimizer: a key of STATE_PER_VALUE.
        precision: "fp32", or "bf16" for autocast around each forward pass.
        saved_precision: of the plan: "exact" or "bf16".
        bias_layers: of the plan: layers whose bias trains whole.
        micro_batch: most images of the batch that are passed through at once, gradients being accumulated:
            each forward pass is cut into the same number of parts. None: the whole batch.
        ghost_batch: images of a group whose statistics batch norms see; None: those of a whole (micro-)batch.
        extra_bytes: of parameters that train beside the network's: those of a task.
        extra_saved_bytes: kept for backward beside what the forward passes keep.
        checkpoint_segments: most segments of the network, cut where the step's peak is lowest: all but the
            last run again in backward.
        checkpoint_cuts: layers or norms to cut it before instead.
        train_head: of the plan: whether the head trains.
        copies: of each value of the network that trains, kept beside it: its moving average, say.

    Raises:
        UserError: no images, an unknown optimizer or precision, or no segment.
    """

    forwards: tuple[int, ...]
    image_shape: tuple[int, int, int]
    norm_mode: str = "frontier"
    optimizer: str = "sgd with momentum"
    precision: str = "fp32"
    saved_precision: str = "exact"
    bias_layers: tuple[str, ...] = ()
    micro_batch: int | None = None
    ghost_batch: int | None = None
    extra_bytes: int = 0
    extra_saved_bytes: int = 0
    checkpoint_segments: int = 1
    checkpoint_cuts: tuple[str, ...] = ()
    train_head: bool = True
    copies: int = 0

    def __post_init__(self) -> None:
        images = (*self.forwards, self.micro_batch, self.ghost_batch)
        if not self.forwards or any(each is not None and each < 1 for each in images):
            raise UserError(
                f"forwards {self.forwards} with micro_batch {self.micro_batch} and ghost_batch "
                f"{self.ghost_batch} are not allowed; each needs 1 image or more"
            )
        if self.optimizer not in STATE_PER_VALUE:
            raise unknown_name("optimizer", self.optimizer, STATE_PER_VALUE)
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.checkpoint_segments < 1:
            raise UserError(f"checkpoint_segments {self.checkpoint_segments} is not allowed; 1 or more")

    @classmethod
    def of_config(cls, config: Config, forwards: tuple[int, ...], bias_layers: Collection[str] = ()) -> Self:
        """The step of a resolved configuration.

        Args:
            forwards: images of each forward pass.
            bias_layers: layers whose bias trains whole under the policy.
        """
        neq, settings, size = config.NEq_config, config.run_config, config.data_provider.image_size
        assert size is not None, "image_size is resolved"
        return cls(
            forwards,
            (3, size, size),
            neq.norm_mode,
            optimizer_kind(settings),
            settings.precision,
            neq.saved_precision,
            tuple(bias_layers),
            ghost_batch=settings.ghost_batch_size,
            checkpoint_segments=settings.checkpoint_segments,
            checkpoint_cuts=settings.checkpoint_cuts,
            train_head=neq.train_head,
            copies=int(settings.ema_decay is not None),
        )

    @property
    def batch_size(self) -> int:
        """Images of the first forward pass."""
        return self.forwards[0]

    @property
    def images(self) -> int:
        """Images of all forward passes."""
        return sum(self.forwards)

    @property
    def parts(self) -> int:
        """Micro-batches that the batch is cut into."""
        return -(-self.batch_size // (self.micro_batch or self.batch_size))

    @property
    def kept_together(self) -> tuple[int, ...]:
        """Images of each forward pass whose intermediates are kept at the same time: of one micro-batch."""
        return tuple(-(-images // self.parts) for images in self.forwards)

    def with_batch_size(self, batch_size: int) -> Self:
        """The same step with another batch; further forward passes grow or shrink with it, rounded up."""
        forwards = tuple(-(-images * batch_size // self.batch_size) for images in self.forwards)
        return replace(self, forwards=forwards)

    def plan(
        self,
        network: nn.Module,
        table: NeuronTable,
        selection: Selection,
        batch: BatchSplit | None = None,
        cuts: Sequence[str] = (),
    ) -> Plan:
        """The plan whose steps these are.

        Args:
            selection: layer name -> chosen channels, ascending.
            batch, cuts: as for `Plan`; `CostModel.cuts` returns those of the specification.
        """
        split = batch if self.ghost_batch is None else GhostBatches(self.ghost_batch)
        return Plan(
            network, table, selection, self.norm_mode, self.bias_layers, self.saved_precision, split, cuts,
            self.train_head,
        )  # fmt: skip

    def trainable_slices(
        self, network: nn.Module, table: NeuronTable, selection: Selection
    ) -> dict[str, ParameterSlice]:
        """What trains in such a step, as `neq.backward.trainable_slices` returns it."""
        return trainable_slices(network, table, selection, self.norm_mode, self.bias_layers, self.train_head)


def optimizer_kind(settings: RunSettings) -> str:
    """The optimizer of a configuration, as a key of STATE_PER_VALUE."""
    has_momentum = settings.optimizer_name == "sgd" and settings.momentum > 0
    return "sgd with momentum" if has_momentum else settings.optimizer_name
