"""A training loop of one's own on the handwritten digits: within half of the memory that full training needs.

    python -m examples.minimal

No trainer, no configuration and no W&B: a network, a plan, an optimizer. Each epoch velocity ranks the
neurons, the budget limits how many of them train, and only these are stored, differentiated and updated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from neq.backward import NamedState, carry_optimizer_state, optimizer_state
from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec
from neq.config import POLICIES
from neq.networks.neurons import neuron_table
from neq.selection import SelectionState, VelocityState, previous_values, similarity

BATCH, SHAPE = 64, (1, 8, 8)


@dataclass(frozen=True)
class EpochResult:
    """An epoch: bytes that a step's training uses, their limit, chosen neurons, test top-1 in per cent."""

    used: int
    limit: int
    neurons: int
    top1: float


def digits() -> tuple[Tensor, Tensor]:
    """1797 images [n, 1, 8, 8] in 0 .. 1, in channels_last like the plan's convolutions, and labels [n]."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return images.contiguous(memory_format=torch.channels_last), torch.tensor(found.target)


def small_network() -> nn.Sequential:
    """Five convolutions and a head."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(1, 16, 1), *block(16, 32, 2), *block(32, 32, 1), *block(32, 64, 2), *block(64, 64, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def train(epochs: int = 8, share: float = 0.5) -> list[EpochResult]:
    """Trains the network within a share of full training's memory."""
    torch.manual_seed(0)
    images, labels = digits()
    order = torch.randperm(len(images))
    # Velocities are measured on images that nothing is trained on.
    test, measured, trained = order[:300], order[300:332], order[332:]
    network = small_network().to(memory_format=torch.channels_last)

    # Once a run: the neurons, the kind of step, and what a step may cost. The plain network owns all weights.
    table = neuron_table(network, SHAPE)
    step = StepSpec((BATCH,), SHAPE, norm_mode="frontier", optimizer="sgd with momentum")
    allocator = BudgetAllocator(CostModel(network, table, step), Budget("bytes", ratio=share))
    velocity = VelocityState.start(len(table))
    momenta: NamedState = {}
    stream = torch.Generator().manual_seed(0)

    results = []
    for epoch in range(epochs):
        # Nothing has been measured before the first epoch: its neurons are drawn.
        policy = POLICIES["velocity" if epoch else "random"]
        state = SelectionState(table, network, stream, velocity=velocity.velocity)
        choice = allocator.choose(policy, state)
        # The plan computes what the network computes, at the cost of the choice.
        plan = step.plan(network, table, table.selection(choice.chosen))
        # The optimizer sees the chosen rows alone, so nothing else moves; rows that stay keep their momentum.
        optimizer = torch.optim.SGD(plan.parameters(), lr=0.05, momentum=0.9)
        carry_optimizer_state(momenta, optimizer, plan)
        before = previous_values(network, plan.parts)

        shuffled = trained[torch.randperm(len(trained))]
        for batch in shuffled.split(BATCH)[:-1]:  # the last one is smaller: not the step that was counted
            cross_entropy(plan(images[batch]), labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            plan.write_back()  # chosen rows into the network's weights

        momenta = optimizer_state(optimizer, plan)
        # phi compares each neuron's outputs before and after the epoch; velocity is how phi changes.
        phi = similarity(network, table, images[measured], before)
        velocity = velocity.after_epoch(phi, mu=0.5, rule="published")
        top1 = accuracy(network, images[test], labels[test])
        results.append(EpochResult(choice.used, choice.limit, int(choice.chosen.sum()), top1))
    return results


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 of the plain network, in per cent."""
    network.eval()
    return 100 * (network(images).argmax(1) == labels).double().mean().item()


if __name__ == "__main__":
    for number, result in enumerate(train()):
        print(
            f"epoch {number}: {result.neurons} neurons, {result.used:,} of {result.limit:,} bytes, "
            f"top-1 {result.top1:.1f} %"
        )
