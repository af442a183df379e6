"""The columns of the sheets Summary and Runs: order, number formats, widths."""

from __future__ import annotations

from neq.results.sheet import Column
from neq.results.tables import (
    AGAIN,
    BUDGET,
    COSTS,
    DATASET,
    DIFFERENCE,
    EVALUATION,
    KEY,
    METHOD,
    MODEL,
    PEAK,
    SAVED,
    SCHEME,
    SEEDS_DONE,
    SELECTABLE,
    SELECTED,
    STATE,
    STEP,
    TEST,
    TEST_STD,
    UNIT,
    VALID,
    VALID_STD,
)

COUNT, POINTS, SHARE = "#,##0", "0.00", "0.000"
FIRST = (
    Column(MODEL), Column(SCHEME), Column(BUDGET, COUNT, 12),
    Column("Initialization"), Column(METHOD, width=10),
)  # fmt: skip
BEST_EPOCH = "valid/best at epoch"
FIGURES = (Column(VALID, POINTS), Column(BEST_EPOCH, "0"), Column(TEST, POINTS))
COST = (Column(STEP, "0.00"), Column(SAVED, "#,##0.00"), Column(PEAK, "#,##0"))
# The published columns in their order; behind these and before the rest: the settings that rows differ in.
SUMMARY_FIRST = (
    *FIRST, Column(VALID, POINTS), Column(BEST_EPOCH, "0.0"), Column(TEST, POINTS),
    Column("Average Stopping Epoch", "0.0"),
    Column(DATASET), Column("Norm mode"), Column(UNIT, width=12),
)  # fmt: skip
SUMMARY_REST = (
    Column(SEEDS_DONE, "0"), Column("Seeds expected", "0"),
    Column(VALID_STD, POINTS), Column(TEST_STD, POINTS),
    Column(SELECTED, COUNT), Column(SELECTABLE, COUNT),
    *(column for cost in COST for column in (cost, Column(COSTS[cost.header], SHARE))),
)  # fmt: skip
RUNS_FIRST = (
    *FIRST, Column("Seed", "0"), Column(STATE), Column("Reason"), *FIGURES,
    Column("valid/loss at valid/best", "0.0000"), Column("Epochs", "0"),
    Column(DATASET), Column("Norm mode"), Column(UNIT, width=12),
)  # fmt: skip
RUNS_REST = (
    Column("Budget used", COUNT), Column(SELECTED, COUNT), Column(SELECTABLE, COUNT),
    *(Column(f"Trained beside: {kind}", COUNT) for kind in ("biases", "norms", "head")),
    *COST, Column("Peak memory is"), Column("Device"), Column("Images left out", COUNT),
    Column("Run"), Column("The same run lies in"),
)  # fmt: skip
CHECKED = (Column(AGAIN, POINTS), Column(DIFFERENCE, POINTS), Column(EVALUATION))
LAST = (Column(KEY, width=14, hidden=True),)
