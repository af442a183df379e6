"""Networks of two branches for two devices: models, costs, and the search of where branches synchronize."""

from neq.partition.branching import branched
from neq.partition.model import Block, Conv, Model, Segment
from neq.partition.model_file import read_model, write_model
from neq.partition.published import BASES, PUBLISHED, published

__all__ = [
    "BASES",
    "PUBLISHED",
    "Block",
    "Conv",
    "Model",
    "Segment",
    "branched",
    "published",
    "read_model",
    "write_model",
]
