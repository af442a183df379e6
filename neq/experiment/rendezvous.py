"""Several processes begin a run together, at one place: the first finds it, the others find the same."""

from __future__ import annotations

from neq.runs import RunRecord
from neq.training import Progress, Training, restore
from neq.utils.errors import UserError

_NOTHING = -1  # announced where there is nothing to train


def nothing_to_train(run: Training) -> None:
    """Tells the other processes that the run has its result already; called by the first."""
    run.processes.announce("start", _NOTHING)


def lead(run: Training, progress: Progress) -> None:
    """Tells the other processes where the run goes on, and waits for them; called by the first.

    Args:
        run: that is trained.
        progress: where it stands.
    """
    run.processes.announce("start", _standing(run, progress))
    _meet(run)


def follow(run: Training, record: RunRecord) -> Progress | None:
    """Finds where the first process goes on, and begins with it; called by the others.

    Args:
        run: that is trained.
        record: of the run, which the first process alone writes.

    Returns:
        Where the run stands; none where there is nothing to train.

    Raises:
        UserError: this process does not find there what the first one does.
    """
    standing = run.processes.announced("start")
    if standing == _NOTHING:
        return None
    progress = restore(run, run.checkpoints.load_last() if standing else None)
    if _standing(run, progress) != standing:
        raise UserError(
            f"process {run.processes.rank} finds another checkpoint in {record.folder} than the first one; "
            "all processes need the same folder"
        )
    _meet(run)
    return progress


def _meet(run: Training) -> None:
    """From here on none keeps another waiting for long."""
    run.data.fill_cache()
    run.processes.meet("ready")


def _standing(run: Training, progress: Progress) -> int:
    """Where a run stands, as a number: 0 before it, then all steps and ends of epochs in order."""
    state = progress.epoch_state
    if progress.epoch == 0 and state is None:
        return 0
    return 1 + progress.epoch * (run.task.steps_per_epoch + 1) + (0 if state is None else state.step)
