"""What a training step learns: the protocol of a task, and the tasks of the core."""

from neq.tasks.classification import Classification
from neq.tasks.task import Counts, Forward, StepOutput, Task, TaskInputs, add_counts, task_class, task_of_run

__all__ = [
    "Classification",
    "Counts",
    "Forward",
    "StepOutput",
    "Task",
    "TaskInputs",
    "add_counts",
    "task_class",
    "task_of_run",
]
