"""Distillation: what a run learns, learned from another network's outputs too. The section `distillation`."""

from __future__ import annotations

from pydantic import Field

from neq.config.keys import register_section, section_of
from neq.config.objectives import register_task_rule
from neq.config.schema import CONTENT, Config, Section


class DistillationSettings(Section):
    """The teacher of a run, whatever its objective is."""

    teacher: str | None = Field(
        None,
        min_length=1,
        description="network to learn from: the folder of a run, or a network by name with teacher_weights",
        json_schema_extra=CONTENT,
    )
    teacher_weights: str | None = Field(
        None, min_length=1, description="file of the named teacher's weights", json_schema_extra=CONTENT
    )
    distill_weight: float = Field(
        0.5, ge=0, le=1, description="share of the teacher's outputs in the loss; the objective has the rest"
    )
    temperature: float = Field(
        4.0, ge=0.1, le=1000, description="T, by which logits are divided before they are compared"
    )
    feature_weight: float = Field(
        0.0, ge=0, le=10**6, description="weight of the distance to the teacher's features on top"
    )


def has_teacher(config: Config) -> bool:
    """Whether a run is distilled."""
    settings = section_of(config, DistillationSettings)
    return settings.teacher is not None or settings.teacher_weights is not None


register_section("distillation", DistillationSettings)
register_task_rule(has_teacher, "neq.distillation.task:distilled")
