"""Training memory of the runs of the int8 benchmark: as measured, and by the published model."""

from __future__ import annotations

import torch

from benchmarks.transfer_runs import Task, class_count, resolved
from neq.budget import CostModel, StepSpec
from neq.config import POLICIES, Config
from neq.experiment.network import open_network
from neq.int8 import Int8Network, model_kilobytes
from neq.networks.neurons import Selection
from neq.runs.selection_file import read_selection_history
from neq.selection import SelectionState, StaticScheme, bias_layers


class _Steps:
    """The steps of a run: their network, neurons and specification."""

    def __init__(self, config: Config, root: str) -> None:
        without = config.net_config.model_copy(update={"weights": "none", "weights_key": None})
        config = config.model_copy(update={"net_config": without})
        self.network, self.table = open_network(config, class_count(root))
        self.network.to(memory_format=torch.channels_last)
        policy, lists = POLICIES[config.NEq_config.neuron_selection], config.backward_config
        self.scheme = StaticScheme.of_config(lists)
        has_biases = self.scheme is not None and policy.trains_biases
        biases = bias_layers(self.table, self.scheme) if self.scheme and has_biases else ()
        self.spec = StepSpec.of_config(config, (config.data_provider.base_batch_size,), biases)
        self.model = CostModel(self.network, self.table, self.spec)

    def published(self, selection: Selection) -> float | None:
        """Kilobytes by the published model; none for a float network."""
        if not isinstance(self.network, Int8Network):
            return None
        spec = self.spec
        parts = spec.trainable_slices(self.network, self.table, selection)
        return model_kilobytes(self.network, parts, spec.image_shape)


def step_memory(config: Config, root: str) -> int:
    """The bytes of training memory that a step of a scheme takes.

    Args:
        config: resolved, of SU.
        root: of the images.
    """
    steps = _Steps(config, root)
    scores = POLICIES["SU"].score(SelectionState(steps.table, steps.network, torch.Generator(), steps.scheme))
    return steps.model.step(steps.table.selection(scores > -torch.inf)).training_bytes


def training_memory(task: Task, saved_bytes: int | None) -> dict[str, float | None]:
    """What training takes for one photo, and the published model's kilobytes: the most of any epoch.

    Args:
        task: of a run that has ended.
        saved_bytes: kept for backward by a step, as measured; None: the run diverged before.
    """
    found: dict[str, float | None] = {"kept_bytes": None, "training_bytes": None, "model_kilobytes": None}
    if saved_bytes is None:
        return found
    config = resolved(task).config
    steps = _Steps(config, task.setting.root)
    chosen = {row.tobytes(): row for row in read_selection_history(task.folder).chosen}
    selections = [steps.table.selection(torch.from_numpy(row)) for row in chosen.values()]
    costs = [steps.model.step(selection) for selection in selections]
    kept = saved_bytes / config.data_provider.base_batch_size
    beside = max(cost.gradient_bytes + cost.optimizer_bytes for cost in costs)
    published = [steps.published(selection) for selection in selections]
    return {
        "kept_bytes": kept,
        "training_bytes": kept + beside,
        "model_kilobytes": max((each for each in published if each is not None), default=None),
    }
