"""A mirror of a run in TensorBoard's event files, beside the run's own record."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from neq.runs.layout import CONFIG, TENSORBOARD
from neq.runs.stored_run import read_metrics
from neq.utils.errors import UserError

if TYPE_CHECKING:
    from neq.training import EpochReport


def check_tensorboard() -> None:
    """Raises:
    UserError: tensorboard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise UserError(
            "tensorboard true needs tensorboard, which is not installed; pip install 'neq[tensorboard]'"
        )


class TensorBoardMirror:
    """Every metric of a run as a curve over epochs, from `with` to the end of its block.

    The event files are made anew from the record at the start: a resumed run repeats no epoch. A folder of
    runs is a `--logdir`: TensorBoard finds the files of every run in it.

    Args:
        folder: of the run; locked by this process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        from torch.utils.tensorboard import SummaryWriter

        events = self._folder / TENSORBOARD
        shutil.rmtree(events, ignore_errors=True)
        self._writer = SummaryWriter(str(events), flush_secs=10)
        self._writer.add_text("config", f"```yaml\n{(self._folder / CONFIG).read_text()}\n```")
        for metrics in read_metrics(self._folder):
            self._add(metrics)
        return self

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Steps are not mirrored."""

    def epoch(self, report: EpochReport) -> None:
        """Adds an epoch to the curves."""
        self._add(report.metrics)

    def finish(self, summary: dict[str, Any]) -> None:
        """The curves hold all epochs already."""

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def _add(self, metrics: Mapping[str, Any]) -> None:
        for name, value in scalars(metrics):
            self._writer.add_scalar(name, value, int(metrics["epochs"]))
        self._writer.flush()


def scalars(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers among an epoch's metrics, by their path: `train/top1`.

    Args:
        metrics: nested, with plain values.
        prefix: of every name.
    """
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)
