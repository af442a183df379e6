"""The table of the networks benchmark, in Markdown, from nothing but its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Norm mode and selection, as `benchmarks.selections.chooser` reads it.
CELLS = (
    ("frozen", "late:.1"),
    ("frozen", "random:.1"),
    ("train", "random:.1"),
)


def tables(networks: Sequence[dict[str, Any]]) -> str:
    """One line a network, and what they rest on."""
    if not networks:
        return "The report holds no networks yet."
    heads = ["network", "norms fused", *(f"{norm}, {_words(selection)}" for norm, selection in CELLS)]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for network in networks:
        fused = "layer by layer" if network["fused"] is None else f"{network['fused']} of {network['norms']}"
        cells = {(cell["norm"], cell["selection"]): cell for cell in network["cells"]}
        figures = (f"{cells[key]['saved_ratio']:.3f} / {cells[key]['time_ratio']:.2f}" for key in CELLS)
        lines.append(_line([network["network"], fused, *figures]))
    every = [cell for network in networks for cell in network["cells"] if "gradient_error" in cell]
    error = max(cell["gradient_error"] for cell in every)
    exact = sum(cell["saved_bytes"] == cell["predicted_bytes"] for cell in every)
    machines = sorted({f"{n['machine']['cpu']}, torch {n['machine']['torch']}" for n in networks})
    rest = (
        f"{len(networks)} networks. Under random selections, the largest gradient error in float64: "
        f"{error:.1e}; bytes predicted exactly: {exact} of {len(every)}. One thread: {'; '.join(machines)}."
    )
    return "\n".join([*lines, "", rest])


def _words(selection: str) -> str:
    kind, _, share = selection.partition(":")
    return f"{kind} {float(share) * 100:g} %"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
