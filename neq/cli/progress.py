"""The progress display of a run."""

from __future__ import annotations

from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from neq.training import EpochReport
from neq.utils.console import Console


class ProgressDisplay:
    """A tracker that shows a bar over the run's steps and a line an epoch; without a terminal, the lines.

    The bar appears with the first step.

    Args:
        console: where to write.
        epochs: of the run.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        self._console, self._epochs = console, epochs
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("training", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Advances the bar."""
        self._progress.start()
        self._progress.update(
            self._task,
            description=f"epoch {epoch}",
            total=steps * self._epochs,
            completed=epoch * steps + step + 1,
        )

    def epoch(self, report: EpochReport) -> None:
        """Prints the epoch's line."""
        metrics = report.metrics
        parts = [
            f"epoch {report.epoch:>{len(str(self._epochs - 1))}}",
            f"loss {metrics['train']['train/loss']:.4f}",
        ]
        if "valid" in metrics:
            parts.append(f"validation {metrics['valid']['val/top1']:6.2f} %")
        if "test" in metrics:
            parts.append(f"test {metrics['test']['test/top1']:6.2f} %")
        parts += [
            f"updated {metrics['Saved parameters']['Number of saved parameters']:>9,}",
            f"step {metrics['step_seconds']:.3f} s",
        ]
        self._console.print("  ".join(parts), highlight=False, soft_wrap=True)

    def finish(self, summary: dict[str, Any]) -> None:
        """Prints nothing: the command prints the summary."""
