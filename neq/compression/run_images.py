"""Images of the run that a network comes from: some to train on, and those that it is tested on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from neq.config import dataset
from neq.data import Data, open_data
from neq.results.best_network import BestNetwork
from neq.tasks import Classification
from neq.training.evaluation import count
from neq.utils.errors import UserError

# Training batches that importance is measured on.
_BATCHES = 8


@dataclass(frozen=True)
class RunImages:
    """The images of a run.

    Args:
        data: opened on the CPU.
        precision: that the run evaluates in.
    """

    data: Data
    precision: str

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Some training batches of the first epoch: images [B, 3, S, S], labels [B]."""
        return islice(self.data.train_batches(0, 0), _BATCHES)

    def top1(self, network: nn.Module) -> float:
        """The top-1 accuracy in % of the test split."""
        task = Classification(self.data, torch.device("cpu"))
        return task.scores(count(network, task, "test", self.precision))["top1"]


@contextmanager
def open_images(best: BestNetwork) -> Iterator[RunImages]:
    """Opens the images of the run of a network.

    Raises:
        UserError: they are not there, or have other classes.
    """
    config = best.config
    settings = config.data_provider
    with open_data(settings, dataset(settings.dataset), config.manual_seed, torch.device("cpu")) as data:
        if len(data.classes) != len(best.classes):
            raise UserError(
                f"the images of {settings.dataset} have {len(data.classes)} classes, the network of "
                f"{best.folder} {len(best.classes)}"
            )
        yield RunImages(data, config.run_config.precision)
