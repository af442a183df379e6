"""Folders of runs as a training leaves them, written in a moment instead of trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neq.config import Config, to_yaml
from neq.runs import RecordHeader, SweepCell, identity, run_folder
from neq.sweeps import cells, read_sweep

SWEEP = """program: train_classification.py
method: {method}
parameters:
  dataset: {{value: digits}}
  net_name: {{value: mcunet-in0}}
  n_epochs: {{value: 3}}
  warmup_epochs: {{value: 0}}
  {more}
"""
GRID = """ratio: {values: [.1, .3]}
  neuron_selection: {values: [velocity, random]}
  manual_seed: {values: [0, 42, 100]}"""


def sweep_file(path: Path, more: str = GRID, method: str = "grid") -> Path:
    """A sweep file over the digits; `more`: its further parameters."""
    path.write_text(SWEEP.format(method=method, more=more))
    return path


def configs(path: Path) -> list[Config]:
    """The configurations of a grid's cells."""
    return [cell.config for cell in cells(read_sweep(path))]


def summary_of(config: Config, **changed: Any) -> dict[str, Any]:
    """What summary.json of a run says; figures follow from seed and budget."""
    neq, epochs = config.NEq_config, config.run_config.n_epochs + config.run_config.warmup_epochs
    ratio = 1.0 if neq.neuron_selection == "full" else neq.ratio or 0.25
    better = 1.5 if neq.neuron_selection == "velocity" else 0
    used = 543_176 if neq.neuron_selection == "full" else round(543_176 * ratio) - 5
    top1 = 80 + better + 10 * ratio + config.manual_seed % 7 / 3
    return {
        "dataset": config.data_provider.dataset,
        "skipped_images": 0,
        "net_name": config.net_config.net_name,
        "neuron_selection": neq.neuron_selection,
        "initialization": neq.initialization,
        "scheme": neq.scheme,
        "budget": round(543_176 * ratio) if neq.budget is None else neq.budget,
        "budget_unit": neq.budget_unit,
        "budget_used_max": used,
        "seed": config.manual_seed,
        "norm_mode": neq.norm_mode,
        "epochs": epochs,
        "best_epoch": epochs - 1,
        "val_top1": top1 + 0.5,
        "val_loss": 0.4,
        "test_top1": top1,
        "selected_parameters_max": used,
        "trained_beside_max": {"biases": 0, "norms": 13664, "head": 1930},
        "selectable_parameters": 543_176,
        "step_seconds": 0.02 + 0.06 * ratio,
        "saved_bytes": round(4e7 * ratio),
        "peak_memory_bytes": round(9e8 + 1e8 * ratio),
        "peak_memory_kind": "maximum of the process",
        "device": "cpu",
        **changed,
    }


def write_run(
    runs: Path,
    config: Config,
    stopped_after: int | None = None,
    folder: str | None = None,
    images: str | None = None,
    asked_by: SweepCell | None = None,
    **summary: Any,
) -> Path:
    """Writes the folder of a run.

    Args:
        runs: folder of all runs.
        config: of the run.
        stopped_after: this many epochs, of a run that is not finished.
        folder: below `runs`, where it is not the run's own.
        images: the fingerprint of its images.
        asked_by: the cell of a sweep.
        summary: what its summary says otherwise.
    """
    place = runs / (folder or run_folder(config, images))
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(to_yaml(config))
    (place / "identity.json").write_text(json.dumps(identity(config, images), indent=2) + "\n")
    if asked_by is not None:
        RecordHeader(sweeps=(asked_by,)).write(place)
    whole = summary_of(config, **summary)
    done = summary_of(config)["epochs"] if stopped_after is None else stopped_after
    rows = [json.dumps({"epochs": at}) + "\n" for at in range(done)]
    (place / "metrics.jsonl").write_text("".join(rows))
    if stopped_after is None:
        (place / "summary.json").write_text(json.dumps(whole, indent=2) + "\n")
    return place
