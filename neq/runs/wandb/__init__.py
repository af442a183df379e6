"""The mirror of a run on Weights & Biases."""

from neq.runs.wandb.login import why_no_wandb
from neq.runs.wandb.mirror import WandbMirror

__all__ = ["WandbMirror", "why_no_wandb"]
