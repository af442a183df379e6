"""Networks by name, their heads and weights, and the table of their neurons."""

from neq.networks.neurons import NORMS, Layer, NeuronTable, Selection, neuron_table
from neq.networks.parameter_slice import ParameterSlice

__all__ = ["NORMS", "Layer", "NeuronTable", "ParameterSlice", "Selection", "neuron_table"]
