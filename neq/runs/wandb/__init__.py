"""The mirror of a run on Weights & Biases."""

from neq.runs.wandb.login import why_no_wandb
from neq.runs.wandb.mirror import WandbMirror, wandb_cell

__all__ = ["WandbMirror", "wandb_cell", "why_no_wandb"]
