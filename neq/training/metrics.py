"""The metrics of an epoch, under the key paths that the published sweeps log."""

from __future__ import annotations

from typing import Any

from neq.budget import Allocation
from neq.networks.neurons import NeuronTable
from neq.training.evaluation import Scores


def selection_metrics(table: NeuronTable, choice: Allocation) -> dict[str, Any]:
    """What an epoch updates, in per cent by layer and in total, and against its budget.

    Args:
        table: the network's neurons.
        choice: of the epoch.

    Returns:
        "Perc of frozen conv neurons", "FLOPS stats" (per cent of the weight gradient's multiply-accumulates
        that are not computed), "Saved parameters" (updated ones: the published name is kept) and "Budget".
    """
    chosen = choice.chosen
    kept = chosen.sum().item()
    used = int(table.parameters[chosen].sum())
    frozen_by_layer = {
        layer.name: 100 * (1 - chosen[table.slice_of(layer.name)].double().mean().item())
        for layer in table.layers
    }
    return {
        "Perc of frozen conv neurons": {"total": 100 * (1 - kept / len(table)), "layer": frozen_by_layer},
        # Within a layer every neuron costs the same, so its frozen share is the share that is saved.
        "FLOPS stats": {
            "total": 100 * (1 - int(table.macs[chosen].sum()) / table.total_macs),
            "layer": frozen_by_layer,
        },
        "Saved parameters": {
            "Number of saved parameters": used,
            # Under another unit there is no budget in parameters to be apart from.
            "Parameters delta with Budget": choice.limit - used if choice.unit == "parameters" else None,
            "Number of saved neurons": int(kept),
        },
        "Budget": {"unit": choice.unit, "limit": choice.limit, "used": choice.used},
    }


def score_metrics(
    train: Scores, validation: Scores | None, test: Scores | None, lr: float, best: dict[str, Any]
) -> dict[str, Any]:
    """How well the network does.

    Args:
        train, validation, test: of the epoch, where they were measured.
        lr: of the epoch's last step.
        best: the run's best so far: val_top1, test_top1 (of that epoch) and highest_test_top1.
    """
    metrics: dict[str, Any] = {
        "lr": lr,
        "train": {"train/top1": train.top1, "train/loss": train.loss, "train/lr": lr},
    }
    if validation is not None:
        metrics["valid"] = {
            "val/top1": validation.top1,
            "val/loss": validation.loss,
            "val/best": best["val_top1"],
        }
    if test is not None:
        metrics["test"] = {
            "test/top1": test.top1,
            "test/loss": test.loss,
            "test/best": best["highest_test_top1"],
            "test/top1_at_valid_best": best.get("test_top1"),
        }
    return metrics
