"""The table at the end of a run."""

import io

import pytest
from rich.console import Console

from neq.results import summary_table


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits_and_says_what_counts(width):
    summary = {
        "dataset": "digits", "net_name": "mbv2", "seed": 3, "best_epoch": 4, "epochs": 9, "val_top1": None,
        "test_top1": 91.234, "neuron_selection": "velocity", "initialization": "SU",
        "budget_unit": "parameters", "budget_used_max": 1234,
        "budget": 1000,
        "selected_parameters_max": 1000, "selectable_parameters": 4000, "step_seconds": 0.0123,
        "trained_beside_max": {"biases": 1, "norms": 2, "head": 3}, "saved_bytes": 2**21,
        "peak_memory_bytes": 2**30, "peak_memory_kind": "maximum of the process",
    }  # fmt: skip
    console = Console(width=width, file=io.StringIO())
    console.print(summary_table(summary))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for said in ("91.23 %", "75.00 %", "0.0123", "2.0 MiB", "none"):
        assert said in text
