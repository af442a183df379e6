"""Rendezvous of a run's ranks: all begin at the checkpoint that rank 0 has found."""

from __future__ import annotations

from neq.runs import RunRecord
from neq.training import Progress, Training, restore
from neq.utils.errors import UserError

_FINISHED = -1  # announced where there is nothing to train


def lead(run: Training, progress: Progress | None) -> None:
    """Announces where training starts, and waits for the other ranks; called by rank 0.

    Args:
        run: to train.
        progress: restored by rank 0; none where there is nothing to train.
    """
    run.processes.announce("start", _FINISHED if progress is None else _position(run, progress))
    if progress is not None:
        _meet(run)


def follow(run: Training, record: RunRecord) -> Progress | None:
    """Restores the checkpoint that rank 0 has announced; called by the other ranks.

    Args:
        run: to train.
        record: of the run, which rank 0 alone writes.

    Returns:
        The restored progress; None where there is nothing to train.

    Raises:
        UserError: this rank finds another checkpoint than rank 0.
    """
    position = run.processes.announced("start")
    if position == _FINISHED:
        return None
    progress = restore(run, run.checkpoints.load_last() if position else None)
    if _position(run, progress) != position:
        raise UserError(
            f"process {run.processes.rank} finds another checkpoint in {record.folder} than process 0; "
            "all processes need the same folder"
        )
    _meet(run)
    return progress


def _meet(run: Training) -> None:
    """Waits until every rank is ready to train: from here on none blocks the others for long."""
    run.data.fill_cache()
    run.processes.meet("ready")


def _position(run: Training, progress: Progress) -> int:
    """A run's position as a number: 0 at its beginning, then all steps and ends of epochs in order."""
    state = progress.epoch_state
    if progress.epoch == 0 and state is None:
        return 0
    return 1 + progress.epoch * (run.task.steps_per_epoch + 1) + (0 if state is None else state.step)
