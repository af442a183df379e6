"""Weights of classes that a run finds before its first step."""

import numpy as np
import pytest
import torch
from torch import nn

from neq.training import restore, train
from neq.utils.errors import UserError
from tests.adaptation.runs import adaptation, domains, write


class Brightness(nn.Module):
    """Tells bright images from dark ones, and has a weight to train."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 3)
            self.conv.bias.zero_()
            self.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


def shades(path, bright, images=100):
    """Dark and bright images, so many of a hundred bright, in every part alike."""
    labels = (np.arange(images) * 7 % 10 < bright / 10).astype(int)
    return write(path, np.repeat(labels * 255, 64).reshape(-1, 8, 8).astype(np.uint8), labels)


def test_classes_that_the_target_has_more_of_count_more(tmp_path):
    files = shades(tmp_path / "source.npz", 50), shades(tmp_path / "target.npz", 80)
    lines = []
    settings = {"mean_std": [[0.5] * 3, [0.5] * 3], "n_epochs": 1, "base_lr": 1e-3}
    with adaptation(tmp_path / "run", "bbse", files, network=Brightness(), **settings) as (run, _):
        run.task._notes = lines.append
        next(run.task.batches(0, 0))  # as a policy that needs gradients does
        train(run)
        assert torch.allclose(run.task.state()["weights"], torch.tensor([0.4, 1.6]))
    assert lines == ["weights of the classes: 0.40, 1.60 (as varied as 1.5 equal ones)"]
    with adaptation(tmp_path / "run", "bbse", files, network=Brightness(), **settings) as (run, _):
        restore(run, run.checkpoints.load_last())
        assert torch.allclose(run.task.state()["weights"], torch.tensor([0.4, 1.6]))


def test_a_network_that_tells_no_classes_apart_is_refused(tmp_path):
    message = "does not tell some classes apart; train it on the source first"
    with (
        adaptation(tmp_path / "run", "bbse", domains(tmp_path)) as (run, _),
        pytest.raises(UserError, match=message),
    ):
        next(run.task.batches(0, 0))
