"""The table of metrics: what runs record, under which names, and how results show it.

A further metric is one entry of METRICS beside the code that computes it. Sweep files, the checks of a
record, `neq results best`, tables, the Excel book and the pictures read the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["%", "s", "bytes", "count", ""]


@dataclass(frozen=True)
class Metric:
    """A figure that runs record.

    Args:
        key: where W&B and the rows of metrics.jsonl hold it (`valid.val/top1` is row["valid"]["val/top1"]);
            of a figure of the whole run its name.
        summary_key: its name in summary.json, which holds the value of the best epoch by validation; empty:
            the summary does not have it.
        header: its name in tables, without the unit; empty: it is not shown.
        unit: in which it is recorded.
        higher_is_better: none: neither is.
        per_epoch: whether every epoch logs it, so that a sweep can optimize it.
    """

    key: str
    summary_key: str
    header: str
    unit: Unit
    higher_is_better: bool | None
    per_epoch: bool

    @property
    def split(self) -> str:
        """`train`, `valid` or `test`; empty where it is of none."""
        return self.key.partition(".")[0] if "." in self.key else ""

    @property
    def name(self) -> str:
        """What the splits share: `top1` of `valid.val/top1`."""
        return self.key.rpartition("/")[2]

    @property
    def is_cost(self) -> bool:
        """Whether it is time or memory, of which less is better."""
        return self.unit in ("s", "bytes") and self.higher_is_better is False


_ALL = (
    Metric("train.train/top1", "", "train/top1", "%", True, True),
    Metric("train.train/loss", "", "train/loss", "", False, True),
    Metric("valid.val/top1", "val_top1", "valid/best", "%", True, True),
    Metric("valid.val/loss", "val_loss", "valid/loss at valid/best", "", False, True),
    Metric("valid.val/best", "", "", "%", True, True),
    Metric("test.test/top1", "test_top1", "test/top1 at valid/best", "%", True, True),
    Metric("test.test/loss", "", "test/loss", "", False, True),
    Metric("test.test/best", "", "", "%", True, True),
    Metric("test.test/top1_at_valid_best", "", "", "%", True, True),
    Metric("budget_used_max", "budget_used_max", "Budget used", "count", None, False),
    Metric("selected_parameters_max", "selected_parameters_max", "Selected parameters", "count", None, False),
    Metric("selectable_parameters", "selectable_parameters", "Selectable parameters", "count", None, False),
    Metric("step_seconds", "step_seconds", "Step time", "s", False, False),
    Metric("saved_bytes", "saved_bytes", "Saved bytes", "bytes", False, False),
    Metric("peak_memory_bytes", "peak_memory_bytes", "Peak memory", "bytes", False, False),
)
METRICS: dict[str, Metric] = {metric.key: metric for metric in _ALL}


def epoch_keys() -> tuple[str, ...]:
    """The keys that every epoch logs, which a sweep can optimize."""
    return tuple(metric.key for metric in METRICS.values() if metric.per_epoch)


def summary_metrics() -> dict[str, Metric]:
    """The metrics of summary.json, by their names there."""
    return {metric.summary_key: metric for metric in METRICS.values() if metric.summary_key}


def quality_metrics() -> dict[str, Metric]:
    """Those of `summary_metrics` that rate a network, by which the best one can be chosen."""
    return {
        key: metric
        for key, metric in summary_metrics().items()
        if metric.higher_is_better is not None and not metric.is_cost
    }


def cost_metrics() -> dict[str, Metric]:
    """Those of `summary_metrics` that are time or memory."""
    return {key: metric for key, metric in summary_metrics().items() if metric.is_cost}


def curves() -> dict[str, list[Metric]]:
    """The metrics that are drawn over the epochs, by what the splits share: one picture each."""
    found: dict[str, list[Metric]] = {}
    for metric in METRICS.values():
        if metric.per_epoch and metric.split and metric.header:
            found.setdefault(metric.name, []).append(metric)
    return found
