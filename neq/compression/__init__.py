"""Compression: transforms that make a trained network smaller, each with a recipe that builds it again."""

from neq.compression.attention import add_attention
from neq.compression.binary import binarize
from neq.compression.changed import Compressed
from neq.compression.factorization import low_rank
from neq.compression.network_folder import read_start, write_compressed
from neq.compression.pruning import prune
from neq.compression.size import Size, size_of
from neq.compression.sparsity import sparsify
from neq.compression.steps import Inputs, compress

__all__ = [
    "Compressed",
    "Inputs",
    "Size",
    "add_attention",
    "binarize",
    "compress",
    "low_rank",
    "prune",
    "read_start",
    "size_of",
    "sparsify",
    "write_compressed",
]
