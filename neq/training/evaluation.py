"""Evaluating the plain network by its task, and adding up counts over processes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch

from neq.tasks import Counts, add_counts
from neq.training.distributed.collectives import ProcessGroup
from neq.training.forward import NetworkForward
from neq.utils.eval_mode import eval_mode

if TYPE_CHECKING:
    from neq.training.context import Training


@torch.no_grad()
def evaluate(run: Training, split: str) -> dict[str, float]:
    """The task's scores of the plain network on a split; of several processes each gets those of all.

    Args:
        run: its network is left in the mode it was in.
        split: "validation" or "test".

    Raises:
        Stopped: a process alone is asked to stop. (Of several, one would leave the others waiting.)
    """
    totals: Counts = {}
    with eval_mode(run.network):
        batches = run.task.evaluate(NetworkForward(run.network, run.config.run_config.precision), split)
        for counts in run.stop.watch(batches) if run.processes.count == 1 else batches:
            totals = add_counts(totals, counts)
    return run.task.scores(sum_counts(totals, run.processes))


def sum_counts(counts: Counts, processes: ProcessGroup) -> Counts:
    """Counts added up over the processes, in float64.

    Args:
        counts: of this process; it may lack names, where a split has fewer images than there are processes.
        processes: all of which call this.
    """
    if processes.count == 1:
        return counts
    file = io.BytesIO()
    torch.save({name: torch.as_tensor(value).detach().cpu() for name, value in counts.items()}, file)
    of_all: list[dict[str, Any]] = [
        torch.load(io.BytesIO(each.numpy().tobytes()), weights_only=True)
        for each in processes.gather(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))
    ]
    found: dict[str, list[torch.Tensor]] = {}
    for each in of_all:
        for name, value in each.items():
            found.setdefault(name, []).append(value)
    return {name: torch.stack(values).double().sum(0).to(values[0].dtype) for name, values in found.items()}
