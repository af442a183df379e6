"""The files of a run's folder by name, and the version of their format."""

from __future__ import annotations

# The format of what this version writes. 1: without record.json, so the environment is not known.
FORMAT = 2

IDENTITY = "identity.json"  # the settings that can change the result; a folder that has it holds a run
RECORD = "record.json"  # format, environments, sweeps
CONFIG = "config.yaml"  # the resolved configuration
CLASSES = "classes.json"  # the names of the classes, in the order of the network's outputs
RECIPE = "recipe.json"  # how to build the network again, see neq.networks.recipe
METRICS = "metrics.jsonl"  # a line an epoch
SUMMARY = "summary.json"  # a folder that has it holds a finished run
CHECKPOINTS = "checkpoint"  # folder, see neq.training.checkpoint
SELECTION = "selection"  # folder, see neq.runs.selection_file
CURVES, SELECTION_PICTURE = "curves.png", "selection.png"
EVALUATION = "evaluation.safetensors"  # outputs on the test split, see neq.results.evaluation
SPEED = "speed.json"  # measured inference, see neq.results.report.speed
TENSORBOARD = "tensorboard"  # event files of TensorBoard
WANDB = "wandb.json"  # which W&B run mirrors this one
LOCK = ".lock"
BEST_WEIGHTS = "best.safetensors"  # in the folder of checkpoints, and in a copy of the best network

# All that a run writes, the lock apart. What makes it a run comes first, and is removed first.
CONTENT = (
    *(IDENTITY, RECORD, CONFIG, CLASSES, RECIPE, METRICS, SUMMARY, CHECKPOINTS),
    *(SELECTION, CURVES, SELECTION_PICTURE, EVALUATION, SPEED, TENSORBOARD, WANDB),
)
# The part that cannot be written again without training.
RESULTS = frozenset({SUMMARY, METRICS, CHECKPOINTS})
