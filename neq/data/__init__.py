"""Data sets by name, their splits, transforms and deterministic loaders."""

from neq.data.loading import Batch
from neq.data.opening import SOURCES, Data, open_data
from neq.data.sources import Source

__all__ = ["SOURCES", "Batch", "Data", "Source", "open_data"]
