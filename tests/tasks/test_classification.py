import pytest
import torch
from torch import nn

from neq.tasks import evaluate_classifier


def test_scores_are_means_over_images_not_batches():
    network = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Dropout(0.9)).train()
    outputs = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0], [3, 0, 0]]).view(5, 3, 1, 1)
    labels = torch.tensor([0, 1, 2, 1, 0])
    batches = [(outputs[:4], labels[:4]), (outputs[4:], labels[4:])]
    scores = evaluate_classifier(network, batches, torch.device("cpu"))
    assert scores["top1"] == 80
    expected = nn.functional.cross_entropy(outputs.flatten(1).double(), labels)
    assert scores["loss"] == pytest.approx(float(expected), rel=1e-6)
    assert network.training


def test_no_images_is_a_bug():
    with pytest.raises(AssertionError):
        evaluate_classifier(nn.Flatten(), [], torch.device("cpu"))
