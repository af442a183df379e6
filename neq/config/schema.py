"""The settings of a run: their types, ranges and defaults.

Sections and names follow the published NEq code's transfer.yaml, so that its files load unchanged (`compat`
reads what neq does not use). Names are unique over the core's sections, so that a flag `--n_epochs 5` needs
no section; a wing adds a section of its own by `register_section`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationInfo,
    field_validator,
)
from pydantic.config import JsonDict
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from neq.config.objectives import OBJECTIVES
from neq.config.policies import POLICIES, initializers

NormMode = Literal["train", "frontier", "frozen"]
BudgetUnit = Literal["parameters", "bytes", "macs", "time"]
Augmentation = Literal["photo", "square", "none"]
# Values of `weights` that are not a path.
WEIGHTS_BY_NAME = ("default", "none")
# Marks a field that cannot change a run's result, and so is no part of the run's identity.
NOT_IDENTITY: JsonDict = {"identity": False}
# Marks a field that may name a file or a run's folder: the identity has the hash of what is in there.
CONTENT: JsonDict = {"identity": "content"}


def _dash_list(value: object) -> object:
    """The list that `36-39-40` or a single number stands for."""
    if isinstance(value, str):
        return value.split("-") if value else []
    if isinstance(value, (int, float)):
        return [value]
    return value


def _holds_bool(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_bool, value))
    return isinstance(value, bool)


def _with_severity(corruption: str | None) -> str | None:
    if corruption is not None and not re.fullmatch(r"[a-z0-9_]+:[1-5]", corruption):
        raise ValueError("a name and a severity from 1 to 5 are expected, as gaussian_noise:3")
    return corruption


def _sums_to_1(shares: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if shares is not None and (min(shares) <= 0 or not math.isclose(sum(shares), 1)):
        raise ValueError("three shares above 0 that sum to 1 are expected, as [.3, .2, .5]")
    return shares


def _ascends(part: tuple[float, float]) -> tuple[float, float]:
    if part[0] >= part[1]:
        raise ValueError("two ascending shares from 0 to 1 are expected, as [0, .3]")
    return part


def _one_or_more(value: object) -> object:
    """A single word as a list."""
    return [value] if isinstance(value, str) else value


def _names(value: object) -> object:
    """The list that `first,second` stands for, with or without brackets."""
    if isinstance(value, str):
        return [name.strip() for name in value.strip().removeprefix("[").removesuffix("]").split(",")]
    return value


def mean_std_pair(value: object) -> object:
    """`[[mean...], [std...]]` as `{mean: [...], std: [...]}`."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return {"mean": value[0], "std": value[1]}
    return value


@dataclass(frozen=True)
class OneOf:
    """Validates a word of a list that may grow while the program runs, with the error of a Literal.

    Args:
        words: gives the allowed words at the time of validation.
    """

    words: Callable[[], Collection[str]]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._checked, handler(source))

    def _checked(self, value: object) -> object:
        words = self.words()
        if not isinstance(value, str) or value not in words:
            raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, words))})
        return value


PolicyName = Annotated[str, OneOf(lambda: POLICIES)]
Epochs = Annotated[int, Field(ge=1)]
Indices = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_dash_list)]
Share = Annotated[float, Field(ge=0, le=1)]
ClassWeights = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=2)]
Shares = Annotated[tuple[Share, ...], BeforeValidator(_dash_list)]


class Section(BaseModel):
    """A section of the configuration: frozen; unknown keys, infinities and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: object, info: ValidationInfo) -> object:
        """Rejects true and false where a number is expected, which pydantic would read as 1 and 0."""
        name = info.field_name or ""
        if _holds_bool(value) and cls.model_fields[name].annotation is not bool:
            raise PydanticCustomError("bool_refused", "true and false are not values of this key")
        return value


class MeanStd(Section):
    """Normalization of the input, per channel, for values in 0 .. 1."""

    mean: tuple[float, float, float]
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class DataProvider(Section):
    """The data set, its splits and its transforms."""

    dataset: str = Field("digits", description="data set by name; npz:FILE; image_folder with root")
    root: str | None = Field(
        None,
        description="folder of the data set; none: data in $NEQ_CACHE, else in ~/.cache/neq",
        json_schema_extra=NOT_IDENTITY,
    )
    corruption: Annotated[str | None, AfterValidator(_with_severity)] = Field(
        None, description="of all images: NAME:SEVERITY, as gaussian_noise:3"
    )
    split_shares: Annotated[
        tuple[Share, Share, Share] | None, BeforeValidator(_dash_list), AfterValidator(_sums_to_1)
    ] = Field(
        None,
        description="shares of the images that train, validate and test, the same ones for every seed; none: "
        "the data set's own splits",
    )
    split_of: Literal["all", "test"] = Field(
        "all", description="which images split_shares divides: all, or those of the official test split"
    )
    train_part: Annotated[tuple[Share, Share], BeforeValidator(_dash_list), AfterValidator(_ascends)] = Field(
        (0.0, 1.0), description="part of the training images that is trained on, in a fixed order, as 0-.3"
    )
    image_size: int | None = Field(
        None, ge=8, le=4096, description="pixels a side; none: the network's own input size"
    )
    resize_scale: float = Field(
        0.08, gt=0, le=1, description="smallest share of the area that a random crop keeps"
    )
    color_aug: float = Field(0.4, ge=0, le=1, description="strength of the colour jitter")
    base_batch_size: int = Field(32, ge=1, description="images per training step")
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle",
        description="training images of an epoch: each once, or drawn so that classes come equally often",
    )
    test_batch_size: int | None = Field(
        None, ge=1, description="images that an evaluation passes through at once; none: base_batch_size"
    )
    n_worker: int = Field(
        0, ge=0, description="loader processes; 0 loads in the main process", json_schema_extra=NOT_IDENTITY
    )
    new_num_classes: int | None = Field(None, ge=2, description="outputs of the new head")
    validation_percentage: float = Field(
        0.2, gt=0, lt=1, description="share of the training images that becomes validation"
    )
    use_validation: bool = Field(True, description="hold out a validation split")
    use_validation_for_velocity: bool = Field(
        True, description="velocity images come from validation, else from training"
    )
    velocity_images: int = Field(10, ge=1, description="images that velocities are measured on")
    mean_std: Annotated[MeanStd | None, BeforeValidator(mean_std_pair)] = Field(
        None, description="input normalization; none: the data set's own"
    )
    augmentation: Augmentation | None = Field(
        None, description="of training images; null: the data set's own (none: nothing random)"
    )
    views: int | None = Field(
        None,
        ge=1,
        description="random views of each training image, which epochs take in turn; none: one of its own in "
        "every epoch",
    )
    prefix_cache: Annotated[int, Field(ge=1)] | Literal["auto", "off"] = Field(
        "off",
        description="keep what frozen first layers make of images: of so many views of each; auto: of a "
        "small set, where it can be done; off: nothing",
        json_schema_extra=NOT_IDENTITY,
    )
    prefix_precision: Literal["exact", "fp16", "bf16", "int8"] = Field(
        "exact", description="how a training image's maps are kept under a number of prefix_cache"
    )
    on_bad_image: Literal["error", "skip"] = Field(
        "error",
        description="images that cannot be read: refuse to start, or leave them out",
        json_schema_extra=NOT_IDENTITY,
    )
    cache: Literal["auto", "none", "memory", "disk"] = Field(
        "auto",
        description="where decoded images are kept; auto: in memory when the set is small",
        json_schema_extra=NOT_IDENTITY,
    )
    cache_gib: float = Field(
        4.0, gt=0, description="most GiB that the cache takes", json_schema_extra=NOT_IDENTITY
    )


class RunSettings(Section):
    """Epochs, optimizer and learning rate."""

    n_epochs: int = Field(200, ge=1, le=1_000_000, description="epochs after warm-up")
    base_lr: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        0.125, description="learning rate after warm-up; auto: the best one in a short search on validation"
    )
    warmup_epochs: int = Field(5, ge=0, description="epochs of linear warm-up, on top of n_epochs")
    warmup_lr: float = Field(0.0, ge=0, description="learning rate that warm-up starts from")
    lr_schedule_name: Literal["cosine", "gamma_step", "multi_step"] = Field(
        "cosine", description="schedule after warm-up, stepped every iteration"
    )
    final_lr: float = Field(0.0, ge=0, description="learning rate that cosine ends at")
    lr_step_size: Epochs | tuple[Epochs, ...] = Field(
        30, description="gamma_step: epochs between steps; multi_step: the epochs of the steps"
    )
    lr_step_gamma: float = Field(0.1, gt=0, le=1, description="factor of each step")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    no_wd_keys: Annotated[tuple[Literal["norm", "bias"], ...], BeforeValidator(_one_or_more)] = Field(
        ("norm", "bias"), description="module kinds without weight decay"
    )
    patience: int | None = Field(
        None, ge=1, description="epochs without a better validation after which training ends; none: all run"
    )
    optimizer_name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="optimizer")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of sgd")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of an image's target that is spread over all classes"
    )
    class_weights: ClassWeights | Literal["balanced"] | None = Field(
        None, description="weight of each class in the loss, or balanced: one over its training images"
    )
    mixup: float = Field(0.0, ge=0, le=100, description="a of mixup, whose shares are of Beta(a, a); 0: none")
    cutmix: float = Field(
        0.0, ge=0, le=100, description="a of CutMix, whose areas are of Beta(a, a); 0: none"
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay a step of the weights' moving average, which is evaluated; none: no average",
    )
    grad_clip_norm: float | None = Field(
        None, gt=0, description="highest norm of a step's gradient, all that trains together; none: any"
    )
    micro_batch_size: int | None = Field(
        None, ge=1, description="images that a process passes through at once, gradients adding up; none: all"
    )
    checkpoint_segments: int = Field(
        1, ge=1, description="segments of the network; all but the last are recomputed in backward"
    )
    checkpoint_cuts: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        (), description="layers before which it is cut instead, as first,second"
    )
    ghost_batch_size: int | None = Field(
        None,
        ge=2,
        description="images whose statistics batch norms see together; none: those of a (micro-)batch",
    )
    test_per_epochs: int = Field(
        1,
        ge=1,
        description="test every so many epochs, and always at a new best epoch",
        json_schema_extra=NOT_IDENTITY,
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast")
    checkpoint_minutes: float | None = Field(
        10,
        ge=0,
        description="a checkpoint in mid-epoch after so many minutes; 0: after epochs only",
        json_schema_extra=NOT_IDENTITY,
    )
    sync_batch_norm: bool = Field(
        True, description="batch statistics of several processes are those of the whole batch"
    )


class NetConfig(Section):
    """The network."""

    net_name: str = Field("mcunet-in0", description="network by name")
    weights: str = Field(
        "default", min_length=1, description="start: default (as the name says), none (random), or a file"
    )
    weights_key: str | None = Field(
        None,
        description="key of the checkpoint's state_dict, as state_dict_ema; default: state_dict or model",
    )


class NEqConfig(Section):
    """Which neurons are updated, and how many."""

    neuron_selection: PolicyName = Field("velocity", description="policy of every epoch but the first")
    initialization: Annotated[str, OneOf(initializers)] = Field(
        "random", description="policy of the first epoch, or epochs"
    )
    initial_epochs: int | None = Field(
        None,
        ge=1,
        description="epochs whose neurons initialization chooses; none: as the policy does, mostly 1",
    )
    scheme: str | None = Field(None, description="named budget with its SU lists, or a .yaml file of one")
    ratio: float | None = Field(None, ge=0, le=10**6, description="budget as a share of all parameters")
    budget: int | None = Field(
        None,
        ge=0,
        le=10**18,
        description="budget in budget_unit; also a share (30%, 20%time), a size (64MiB), MACs (20MMACs) or a "
        "time (30ms)",
    )
    budget_unit: BudgetUnit = Field(
        "parameters",
        description="of ratio and budget; bytes: training memory of a step, macs: backward, an image, "
        "time: nanoseconds of a step",
    )
    unit: Literal["neuron", "input_channel"] = Field(
        "neuron",
        description="what is chosen: output neurons, or input channels, of which only those are kept",
    )
    saved_precision: Literal["exact", "bf16"] = Field(
        "exact", description="how layers' inputs are kept for backward: as they are, or rounded to bf16"
    )
    cost_aware: bool = Field(
        False, description="take what brings the most for its cost, instead of in the policy's order"
    )
    choose_every: int | None = Field(
        None, ge=1, description="epochs between choices; none: as the policy does, every epoch or once"
    )
    importance: Literal[
        "gradient_norm", "loss_decrease", "squared_gradient", "relative_gradient", "fisher"
    ] = Field("gradient_norm", description="what a neuron's importance is measured by")
    importance_batches: int = Field(10, ge=1, description="training batches that importance is measured on")
    layer_share: float = Field(
        0.9, gt=0, le=1, description="share of the layers' summed importance that preselected layers hold"
    )
    velocity_mu: float = Field(0.5, ge=0, lt=1, description="mu of the velocity")
    velocity_rule: Literal["published", "reference"] = Field(
        "published", description="velocity of the paper, or of its code"
    )
    norm_mode: NormMode = Field("frontier", description="which norms train, on which statistics")
    train_head: bool = Field(True, description="train the classifier head, outside the budget")


class BackwardConfig(Section):
    """The lists of an SU scheme."""

    n_bias_update: int = Field(0, ge=0, description="how many of the last convs train their bias")
    manual_weight_idx: Indices = Field((), description="conv indices in module order, as 36-39-40")
    weight_update_ratio: Shares = Field((), description="updated share of each listed conv, as 1-.5-0")


class Config(Section):
    """A whole run."""

    project_name: str = Field(
        "neq", description="project that the run belongs to", json_schema_extra=NOT_IDENTITY
    )
    run_dir: str | None = Field(
        None, description="folder of the run; none: runs/...", json_schema_extra=NOT_IDENTITY
    )
    manual_seed: int = Field(0, ge=0, lt=2**63, description="seed of every random stream")
    objective: Annotated[str, OneOf(lambda: OBJECTIVES)] = Field(
        "classification", description="what is learned: labels, or the entropy of outputs without them"
    )
    resume: bool = Field(
        False, description="continue the run that the folder holds", json_schema_extra=NOT_IDENTITY
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the run computes", json_schema_extra=NOT_IDENTITY
    )
    memory: Literal["fast", "tight"] = Field(
        "fast",
        description="tight: a CPU process takes little more than its tensors do; longer steps",
        json_schema_extra=NOT_IDENTITY,
    )
    tensorboard: bool = Field(
        False,
        description="write the curves of the run for TensorBoard too, in its folder",
        json_schema_extra=NOT_IDENTITY,
    )
    data_provider: DataProvider = DataProvider()
    run_config: RunSettings = RunSettings()
    net_config: NetConfig = NetConfig()
    NEq_config: NEqConfig = NEqConfig()
    backward_config: BackwardConfig = BackwardConfig()
