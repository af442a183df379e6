"""The run's own record, and mirrors of it."""

from neq.tracking.record import RunRecord, read_metrics, read_summary
from neq.tracking.selection_file import read_selection

__all__ = ["RunRecord", "read_metrics", "read_selection", "read_summary"]
