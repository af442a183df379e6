"""An epoch's metrics, under the key paths that the published sweeps log, and a training's summary."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from neq.budget import Allocation
from neq.networks.neurons import NeuronTable
from neq.training.context import Progress, Training
from neq.training.profiling import peak_memory

Scores = Mapping[str, float]


def selection_metrics(table: NeuronTable, choice: Allocation) -> dict[str, Any]:
    """What an epoch updates: in per cent by layer and in total, and of its budget.

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
            # A budget in another unit has no difference in parameters.
            "Parameters delta with Budget": choice.limit - used if choice.unit == "parameters" else None,
            "Number of saved neurons": int(kept),
        },
        "Budget": {"unit": choice.unit, "limit": choice.limit, "used": choice.used},
    }


def score_metrics(
    train: Scores, validation: Scores | None, test: Scores | None, best: Mapping[str, Any], best_by: str
) -> dict[str, Any]:
    """An epoch's scores, as "train/NAME", "val/NAME" and "test/NAME".

    Args:
        train: mean scores of the epoch's batches, and `lr` of its last step.
        validation, test: scores after the epoch, where they were measured.
        best: of the run so far, as `best_scores` returns it.
        best_by: the score that the best epoch is chosen by.
    """
    metrics: dict[str, Any] = {
        "lr": train["lr"],
        "train": {f"train/{name}": value for name, value in train.items()},
    }
    if validation is not None:
        scores = {f"val/{name}": value for name, value in validation.items()}
        metrics["valid"] = {**scores, "val/best": best[f"val_{best_by}"]}
    if test is not None:
        metrics["test"] = {
            **{f"test/{name}": value for name, value in test.items()},
            "test/best": best[f"highest_test_{best_by}"],
            f"test/{best_by}_at_valid_best": best.get(f"test_{best_by}"),
        }
    return metrics


def best_scores(
    former: Mapping[str, Any],
    epoch: int,
    validation: Scores | None,
    test: Scores,
    best_by: str,
    is_best: bool,
) -> dict[str, Any]:
    """The best epoch's scores after one more epoch.

    Args:
        former: as returned for the epochs before.
        epoch: the one that `validation` and `test` are of.
        best_by: the score that the best epoch is chosen by.
        is_best: whether this epoch is the best one.

    Returns:
        Of the best epoch `epoch`, `val_NAME` for every score (none without validation) and `test_NAME` for
        every score but the loss; and `highest_test_NAME` of all epochs for `best_by`.
    """
    key = f"highest_test_{best_by}"
    best = {**former, key: max(test[best_by], former.get(key, test[best_by]))}
    if is_best:
        best |= {
            "epoch": epoch,
            **{f"val_{name}": None if validation is None else validation.get(name) for name in test},
            **{f"test_{name}": value for name, value in test.items() if name != "loss"},
        }
    return best


def summary(run: Training, progress: Progress) -> dict[str, Any]:
    """The content of summary.json: the run, its result, its cost."""
    config, neq, best = run.config, run.config.NEq_config, progress.best
    searched = {"base_lr": progress.base_lr, "rate_search": progress.rate_trials}
    memory, memory_kind = peak_memory(run.device)
    return {
        "dataset": config.data_provider.dataset,
        "skipped_images": len(run.data.skipped),
        "net_name": config.net_config.net_name,
        "neuron_selection": neq.neuron_selection,
        "initialization": neq.initialization,
        "scheme": neq.scheme,
        "budget": run.allocator(run.main_policy).limit,
        "budget_unit": neq.budget_unit,
        "budget_used_max": progress.budget_used_max,
        "seed": config.manual_seed,
        "norm_mode": neq.norm_mode,
        **(searched if progress.rate_trials else {}),
        "epochs": progress.epoch,
        "best_epoch": best["epoch"],
        **{name: value for name, value in best.items() if name.startswith(("val_", "test_"))},
        "selected_parameters_max": progress.selected_parameters_max,
        "trained_beside_max": progress.trained_beside_max,
        "selectable_parameters": run.table.total_parameters,
        "step_seconds": statistics.median(progress.step_seconds),
        "saved_bytes": progress.saved_bytes,
        "peak_memory_bytes": run.processes.largest(memory),
        "peak_memory_kind": memory_kind,
        **({} if run.step_times.latency is None else {"latency": run.step_times.latency.state()}),
        "device": str(run.device),
    }
