"""The learning rate of what starts at random."""

import torch

from neq.networks.heads import head_name
from neq.training.context import Progress
from neq.training.loop import _choose
from neq.training.steps import train_step
from tests.adaptation.runs import adaptation, domains


def changes(folder, files, factor, method="dann"):
    """How far one step of SGD moves every parameter, by name."""
    settings = {"head_rate": factor, "bottleneck": 8, "optimizer_name": "sgd", "momentum": 0.0}
    with adaptation(folder, method, files, weight_decay=0.0, **settings) as (run, _):
        epoch = _choose(run, Progress(), 0)
        every = {**dict(run.network.named_parameters()), **run.task.extra_parameters()}
        before = {name: value.detach().clone() for name, value in every.items()}
        for group in epoch.optimizer.param_groups:
            group["lr"] = 0.01
        train_step(run, epoch, next(run.task.batches(0, 0)))
        return head_name(run.network), {name: value.detach() - before[name] for name, value in every.items()}


def test_head_bottleneck_and_discriminator_move_by_the_factor_and_the_rest_as_before(tmp_path):
    files = domains(tmp_path)
    head, plain = changes(tmp_path / "plain", files, 1.0)
    _, fast = changes(tmp_path / "fast", files, 10.0)
    place = head.rpartition(".")[0]
    moved = set()
    for name, change in plain.items():
        is_ours = name.startswith((f"{place}.", "discriminator."))
        factor = 10 if is_ours else 1
        assert torch.allclose(fast[name], factor * change, rtol=1e-4, atol=1e-6), name
        moved.add((is_ours, bool(change.any())))
    assert {(True, True), (False, True)} <= moved
