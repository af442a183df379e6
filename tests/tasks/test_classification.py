from types import SimpleNamespace

import pytest
import torch
from torch import nn

from neq.tasks import Classification
from neq.tasks.classification import classification_scores
from neq.training.evaluation import count


def test_scores_are_means_over_images_not_batches():
    network = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Dropout(0.9)).train()
    outputs = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0], [3, 0, 0]]).view(5, 3, 1, 1)
    labels = torch.tensor([0, 1, 2, 1, 0])
    batches = [(outputs[:4], labels[:4]), (outputs[4:], labels[4:])]
    data = SimpleNamespace(eval_batches=lambda split: batches, steps_per_epoch=1, share=1.0)
    task = Classification(data, torch.device("cpu"))
    scores = task.scores(count(network, task, "test", "fp32"))
    assert scores["top1"] == 80
    expected = nn.functional.cross_entropy(outputs.flatten(1).double(), labels)
    assert scores["loss"] == pytest.approx(float(expected), rel=1e-6)
    assert network.training


def test_no_images_is_a_bug():
    with pytest.raises(AssertionError):
        classification_scores({"images": 0})
