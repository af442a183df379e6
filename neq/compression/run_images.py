"""Images of the run that a network comes from: some to train on, and those that it is tested on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from neq.config import dataset
from neq.data import Data, open_data
from neq.results.best_network import BestNetwork
from neq.results.evaluation import known_images, opened_task
from neq.tasks import Task
from neq.training.evaluation import count
from neq.utils.errors import UserError

# Training batches that importance is measured on.
_BATCHES = 8
# Images that an int8 form is calibrated and compared on.
_SHOWN = 320


@dataclass(frozen=True)
class RunImages:
    """The images of a run.

    Args:
        data: opened on the CPU.
        task: of the run, which evaluates.
        precision: that the run evaluates in.
    """

    data: Data
    task: Task[Any]
    precision: str

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Some training batches of the first epoch: images [B, 3, S, S], labels [B]."""
        return islice(self.data.train_batches(0, 0), _BATCHES)

    def unlabelled(self) -> Tensor:
        """Training images as they are evaluated, in a random order, float32 [N, 3, S, S], N at most 320."""
        batches = self.data.whole_batches("train", _SHOWN // 10)
        return torch.cat([images for images, _ in islice(batches, 10)])

    def top1(self, network: nn.Module) -> float:
        """The top-1 accuracy in % of the test split."""
        return self.task.scores(count(network, self.task, "test", self.precision))["top1"]


@contextmanager
def open_images(best: BestNetwork) -> Iterator[RunImages]:
    """Opens the images of the run of a network.

    Raises:
        UserError: they are not there, are others, or have other classes.
    """
    config = best.config
    settings = config.data_provider
    with open_data(settings, dataset(settings.dataset), config.manual_seed, torch.device("cpu")) as data:
        if len(data.classes) != len(best.classes):
            raise UserError(
                f"the images of {settings.dataset} have {len(data.classes)} classes, the network of "
                f"{best.folder} {len(best.classes)}"
            )
        with opened_task(config, data, best.network, known_images(best.folder)) as task:
            yield RunImages(data, task, config.run_config.precision)
