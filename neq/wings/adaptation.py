"""Adaptation from a labelled source domain to an unlabelled target domain: an objective for each method.

`adapt_METHOD` trains on the run's data set, the source, and on the images of the section's `target`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from neq.config.keys import register_section
from neq.config.objectives import Objective, register_objective
from neq.config.schema import NOT_IDENTITY, Section

PREFIX = "adapt_"
# Nothing of the network trains, or all but the head.
_NOTHING: Mapping[str, object] = {
    "neuron_selection": "none",
    "train_head": False,
    "norm_mode": "frozen",
    "n_epochs": 1,
    "warmup_epochs": 0,
}
# Its images train on the statistics of their own domain.
_OF_SOURCE: Mapping[str, object] = {"adapt_statistics": False}
# Method -> what compares the domains, or the task of a method that does not compare them, and its defaults.
METHODS: dict[str, tuple[str, Mapping[str, object]]] = {
    "mcc": ("neq.adaptation.mcc:Mcc", {}),
    "cdan_e": ("neq.adaptation.cdan:CdanE", {}),
    "cdan": ("neq.adaptation.cdan:Cdan", {}),
    "dann": ("neq.adaptation.dann:Dann", {}),
    "coral": ("neq.adaptation.coral:Coral", {}),
    "ddc": ("neq.adaptation.ddc:Ddc", {}),
    "dan": ("neq.adaptation.dan:Dan", {}),
    "jan": ("neq.adaptation.jan:Jan", {}),
    "mdd": ("neq.adaptation.mdd:Mdd", {}),
    "mixed": ("neq.adaptation.mixed:Mixed", {}),
    "source": ("neq.adaptation.supervised:SourceOnly", _OF_SOURCE),
    "bbse": ("neq.adaptation.label_shift:LabelShift", _OF_SOURCE),
    "reweighted": ("neq.adaptation.covariate_shift:CovariateShift", _OF_SOURCE),
    "labelled": ("neq.adaptation.supervised:LabelledTarget", {}),
    "shot": ("neq.adaptation.source_free:SourceFree", {"train_head": False}),
    "adabn": ("neq.adaptation.adabn:AdaBn", _NOTHING),
}


class AdaptationSettings(Section):
    """The target domain of an adaptation, and how both domains are learned together."""

    target: str | None = Field(None, description="of an adaptation: the unlabelled data set, as of dataset")
    target_root: str | None = Field(
        None, description="folder of the target's images, as of root", json_schema_extra=NOT_IDENTITY
    )
    transfer: str | None = Field(
        None, description="names the two domains, so that runs of other domains are found apart: photo-sketch"
    )
    loss_weight: float | None = Field(
        None, ge=0, description="weight of the method's loss beside the cross entropy; none: the method's own"
    )
    domain_norms: Literal["joint", "separate", "domain"] = Field(
        "joint",
        description="batch norms see both domains' images together, or each domain's in turn, or (domain) "
        "with running statistics for each domain",
    )
    adapt_statistics: bool = Field(False, description="batch norms start from the statistics of the target")
    bottleneck: int | None = Field(
        None, ge=1, le=65536, description="features of a layer before the head; none: no such layer"
    )
    head_rate: float = Field(
        1.0, gt=0, le=1000, description="times base_lr: rate of head, bottleneck and the method's parameters"
    )
    sharpness_radius: float | None = Field(
        None,
        gt=0,
        le=10,
        description="SDAT: losses and gradients are taken where the source's cross entropy is highest within "
        "this radius of the weights; none: at the weights",
    )
    velocity_of: Literal["source", "target", "both"] = Field(
        "source", description="domain on whose velocity_images velocities are measured"
    )
    select_by: Literal["last", "source", "im", "snd", "oracle"] = Field(
        "last",
        description="epoch that is kept: the last one, or the best by source validation, by IM or SND on "
        "target images, or (oracle) by target labels",
    )


register_section("adaptation", AdaptationSettings)
for _name, (_place, _defaults) in METHODS.items():
    _is_own_task = _name in ("source", "labelled", "bbse", "reweighted", "shot", "adabn")
    register_objective(
        Objective(
            PREFIX + _name,
            _place if _is_own_task else "neq.adaptation.aligned:Aligned",
            defaults={"use_validation": False, **_defaults},
            trains=_name != "adabn",
        )
    )
