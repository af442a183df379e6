"""The run's own record, and mirrors of it."""

from neq.tracking.record import RunIsBusy, RunRecord, read_metrics, read_summary
from neq.tracking.selection_file import read_selection
from neq.tracking.wandb_login import why_no_wandb
from neq.tracking.wandb_mirror import WandbMirror

__all__ = [
    "RunIsBusy",
    "RunRecord",
    "WandbMirror",
    "read_metrics",
    "read_selection",
    "read_summary",
    "why_no_wandb",
]
