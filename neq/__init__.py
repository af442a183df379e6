"""neq fine-tunes vision networks when the backward pass has a budget.

The names below are the public API. They are imported on first use: `import neq` alone loads nothing else, and
`neq.Plan` neither pydantic nor a YAML reader.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neq.api import Run, load_run, train
    from neq.backward import Plan
    from neq.budget import Budget, CostModel, StepSpec
    from neq.config import Policy
    from neq.networks import NeuronTable, neuron_table

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "CostModel",
    "NeuronTable",
    "Plan",
    "Policy",
    "Run",
    "StepSpec",
    "__version__",
    "load_run",
    "neuron_table",
    "train",
]

_MODULES = {
    "Budget": "neq.budget",
    "CostModel": "neq.budget",
    "NeuronTable": "neq.networks",
    "Plan": "neq.backward",
    "Policy": "neq.config",
    "Run": "neq.api",
    "StepSpec": "neq.budget",
    "load_run": "neq.api",
    "neuron_table": "neq.networks",
    "train": "neq.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'neq' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
