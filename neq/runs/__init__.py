"""Runs on disk and on W&B: the one place that writes and reads a run's folder.

Nothing here imports torch, so that runs are listed at once; what trains passes its tensors in.
"""

from neq.runs.environment import Environment, current_environment, differences, differences_line
from neq.runs.find_run import RunLocation, find_run
from neq.runs.identity import fingerprint, identity, run_folder
from neq.runs.record import RunIsBusy, RunRecord
from neq.runs.record_header import RecordHeader, Stretch, SweepCell
from neq.runs.selection_file import read_selection
from neq.runs.stored_run import StoredRun, load_run, read_metrics, read_summary
from neq.runs.tensorboard import TensorBoardMirror, check_tensorboard
from neq.runs.wandb import WandbMirror, wandb_cell, why_no_wandb

__all__ = [
    "Environment",
    "RecordHeader",
    "RunIsBusy",
    "RunLocation",
    "RunRecord",
    "StoredRun",
    "Stretch",
    "SweepCell",
    "TensorBoardMirror",
    "WandbMirror",
    "check_tensorboard",
    "current_environment",
    "differences",
    "differences_line",
    "find_run",
    "fingerprint",
    "identity",
    "load_run",
    "read_metrics",
    "read_selection",
    "read_summary",
    "run_folder",
    "wandb_cell",
    "why_no_wandb",
]
