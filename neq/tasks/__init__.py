"""What a training step learns: the protocol of a task, and classification as the first one."""

from neq.tasks.classification import Classification
from neq.tasks.task import Counts, Forward, StepOutput, Task, add_counts

__all__ = [
    "Classification",
    "Counts",
    "Forward",
    "StepOutput",
    "Task",
    "add_counts",
]
