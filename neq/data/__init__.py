"""Data sets by name, their splits, transforms and deterministic loaders."""

from neq.data.loading import Batch
from neq.data.opening import Data, open_data, run_source
from neq.data.registry import open_source
from neq.data.sources import Source

__all__ = ["Batch", "Data", "Source", "open_data", "open_source", "run_source"]
