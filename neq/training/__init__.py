"""Training under a budget: the loop and what it needs."""

from neq.training.checkpoint import Checkpoints, load_checkpoint
from neq.training.context import Progress, Training, choose_neurons, make_plan
from neq.training.loop import train
from neq.training.memory import held_now, is_out_of_memory, memory_limit, predict, taken, what_fits
from neq.training.profiling import forget_peak_memory, peak_memory
from neq.training.resume import restore
from neq.training.schedule import total_epochs
from neq.training.steps import TrainingDiverged
from neq.training.stopping import Stop, Stopped, stop_on_signals
from neq.training.tracker import EpochReport, Tracker

__all__ = [
    "Checkpoints",
    "EpochReport",
    "Progress",
    "Stop",
    "Stopped",
    "Tracker",
    "Training",
    "TrainingDiverged",
    "choose_neurons",
    "forget_peak_memory",
    "held_now",
    "is_out_of_memory",
    "load_checkpoint",
    "make_plan",
    "memory_limit",
    "peak_memory",
    "predict",
    "restore",
    "stop_on_signals",
    "taken",
    "total_epochs",
    "train",
    "what_fits",
]
