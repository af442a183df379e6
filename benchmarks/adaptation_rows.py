"""The rows of the adaptation benchmark, and what their runs are set to."""

from __future__ import annotations

from collections.abc import Mapping

_SHORT: dict[str, object] = {"neuron_selection": "none", "initialization": "none", "norm_mode": "frozen"}
# Every domain on its own statistics.
OWN: dict[str, object] = {"domain_norms": "domain", "adapt_statistics": True}
# Beside the objective: what a row's runs are set to.
METHODS: dict[str, Mapping[str, object]] = {
    "source": {},
    "adabn": {**_SHORT, "train_head": False, "n_epochs": 1},
    "mixed": OWN,
    "bbse": {},
    "reweighted": {},
    "shot": {"train_head": False, "adapt_statistics": True},
    "ddc": OWN,
    "coral": OWN,
    "dan": OWN,
    "jan": OWN,
    "dann": OWN,
    "cdan_e": OWN,
    "mdd": OWN,
    "mcc": OWN,
    "mcc, common statistics": {"adapt_statistics": False},
    "labelled": {"adapt_statistics": True},
}
POLICIES = ("auto", "velocity", "random")
BUDGETS = ("10%", "30%", "100%", "5MiB")
STUDY = tuple(f"mcc, {policy} {budget}" for budget in BUDGETS for policy in POLICIES)
ROWS = (*METHODS, *STUDY)
FROM_SOURCE = ("adabn", "shot", "bbse", "reweighted")
