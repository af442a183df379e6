"""Reports about memory: the predicted peak of a run, and what fits where memory ran out."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from neq.training import Training, held_now, is_out_of_memory, memory_limit, predict, taken, what_fits
from neq.training.memory import process_bytes
from neq.training.profiling import peak_memory
from neq.utils.malloc import can_give_back


class OutOfMemory(RuntimeError):
    """Memory ran out; the message names settings that should fit."""


def predicted_line(run: Training) -> str:
    """The predicted peak of training, in one line."""
    memory = predict(run)
    parts = {
        "weights and chosen rows": memory.weights + memory.rows,
        "optimizer state": memory.optimizer,
        "values before the epoch": memory.before,
        "a step at its peak": memory.step,
    }
    listed = ", ".join(f"{size / 2**20:,.1f} {name}" for name, size in parts.items() if size)
    what = run.main_policy.needs
    measuring = f"; measuring {what} {memory.measuring / 2**20:,.1f}" if memory.measuring else ""
    process = ""
    if run.device.type == "cpu":
        fast, tight = (
            f"{process_bytes(memory.peak, run.device, how) / 2**20:,.0f} MiB" for how in ("fast", "tight")
        )
        process = f"; for them a process takes up to {fast}"
        process += f", under --memory tight {tight}" if can_give_back() else ""
    return f"memory: tensors take at most {memory.peak / 2**20:,.1f} MiB: {listed}{measuring}{process}"


def _would_fit_tight(run: Training, room: int) -> bool:
    """Whether the run would fit under --memory tight, which it does not use yet."""
    could = run.config.memory == "fast" and run.device.type == "cpu" and can_give_back()
    return could and taken(run, "tight") <= room


@contextmanager
def memory_explained(run: Training) -> Iterator[None]:
    """Turns an out-of-memory error into a report of what was predicted, measured, and would fit.

    Raises:
        OutOfMemory: in place of the error of torch or Python.
    """
    before = held_now(run.device)
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        limit = memory_limit(run.device)
        measured, whose = peak_memory(run.device)
        traceback.clear_frames(error.__traceback__)  # which hold the tensors of the step
        gc.collect()
        predicted = predict(run)
        # On a CPU the process holds Python and the libraries too, and the weights.
        room = limit - before + predicted.weights
        images, budget = what_fits(run, room)
        ways = [] if images is None else [f"--base_batch_size {images}"]
        ways += [] if budget is None else [f"--budget {budget // 2**20}MiB"] if budget >= 2**20 else []
        fits = " or ".join(ways) + " should fit, as a run of its own" if ways else "take smaller images"
        if _would_fit_tight(run, room):
            fits = f"--resume --memory tight should fit, with longer steps; or {fits}"
        raise OutOfMemory(
            f"out of memory: predicted {predicted.peak / 2**20:,.0f} MiB of tensors, measured "
            f"{measured / 2**20:,.0f} MiB ({whose}) of {limit / 2**20:,.0f} MiB; {fits}; what was "
            "saved before is kept"
        ) from error
