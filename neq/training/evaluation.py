"""Evaluating the plain network by its task, and adding up counts over processes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neq.tasks import Counts, Task, add_counts
from neq.training.distributed.collectives import ProcessGroup
from neq.training.forward import NetworkForward
from neq.utils.eval_mode import eval_mode

if TYPE_CHECKING:
    from neq.training.context import Training


def evaluate(run: Training, split: str) -> dict[str, float]:
    """The task's scores of the plain network on a split; of several processes each gets those of all.

    Args:
        run: its network is left in the mode it was in.
        split: "validation" or "test".

    Raises:
        Stopped: a process alone is asked to stop. (Of several, one would leave the others waiting.)
    """
    watch = run.stop.watch if run.processes.count == 1 else iter
    precision = run.config.run_config.precision
    inputs = run.maps.of_evaluation(run)
    counts = count(run.network, inputs.task, split, precision, watch, inputs.network)
    return run.task.scores(sum_counts(counts, run.processes))


@torch.no_grad()
def count(
    network: nn.Module,
    task: Task[Any],
    split: str,
    precision: str,
    watch: Callable[[Iterator[Counts]], Iterator[Counts]] = iter,
    called: Callable[[Tensor], Tensor] | None = None,
) -> Counts:
    """The task's counts of a network on this process' share of a split.

    Args:
        network: on the task's device; it is left in the mode it was in.
        task: with the split.
        split: "validation" or "test".
        precision: "fp32", or "bf16" for autocast.
        watch: passes the counts of the batches on, or raises.
        called: the part of the network that the task calls; none: all of it.
    """
    totals: Counts = {}
    with eval_mode(network):
        for counts in watch(task.evaluate(NetworkForward(called or network, precision), split)):
            totals = add_counts(totals, counts)
    return totals


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
