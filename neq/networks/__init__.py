"""Networks by name, their heads and weights, and the table of their neurons."""

from neq.networks.layer_kinds import ByteWidths, LayerKind, layer_kind, register_layer_kind
from neq.networks.neurons import NORMS, Layer, NeuronTable, Selection, neuron_table
from neq.networks.parameter_slice import ParameterSlice

__all__ = [
    "NORMS",
    "ByteWidths",
    "Layer",
    "LayerKind",
    "NeuronTable",
    "ParameterSlice",
    "Selection",
    "layer_kind",
    "neuron_table",
    "register_layer_kind",
]
