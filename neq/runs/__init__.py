"""The folder of a run: what it is, its record, and its mirror on W&B."""

from neq.runs.find_run import Place, find_run
from neq.runs.identity import identity, run_folder
from neq.runs.record import RunIsBusy, RunRecord, read_metrics, read_summary
from neq.runs.selection_file import read_selection
from neq.runs.wandb import WandbMirror, why_no_wandb

__all__ = [
    "Place",
    "RunIsBusy",
    "RunRecord",
    "WandbMirror",
    "find_run",
    "identity",
    "read_metrics",
    "read_selection",
    "read_summary",
    "run_folder",
    "why_no_wandb",
]
