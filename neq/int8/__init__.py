"""Int8 networks: their files, their arithmetic, and training them."""

from neq.int8.conv import Int8Conv
from neq.int8.description import (
    Add,
    Conv,
    Description,
    Images,
    Linear,
    MaxPool,
    Multiply,
    Operation,
    Pool,
    Quantization,
    Table,
)
from neq.int8.float_weights import float_weights
from neq.int8.int8_file import read_int8, write_int8
from neq.int8.kind import INT8_CONV
from neq.int8.memory_model import model_kilobytes
from neq.int8.network import Int8Network, set_exact
from neq.int8.onnx_file import onnx_model
from neq.int8.qas import attach
from neq.int8.quantize import Quantized, quantize
from neq.int8.tiny_training import read_tiny_training

__all__ = [
    "INT8_CONV",
    "Add",
    "Conv",
    "Description",
    "Images",
    "Int8Conv",
    "Int8Network",
    "Linear",
    "MaxPool",
    "Multiply",
    "Operation",
    "Pool",
    "Quantization",
    "Quantized",
    "Table",
    "attach",
    "float_weights",
    "model_kilobytes",
    "onnx_model",
    "quantize",
    "read_int8",
    "read_tiny_training",
    "set_exact",
    "write_int8",
]
