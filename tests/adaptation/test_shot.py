import torch

from neq.adaptation.shot import information_loss, pseudo_labels
from tests.adaptation.points import R, close


def test_the_loss_of_known_probabilities():
    assert close(information_loss(R.log()), -0.033822075569)


def test_entropy_alone_is_lowest_where_all_images_are_one_class():
    one_class = torch.tensor([[30.0, 0.0], [30.0, 0.0]])
    two = torch.tensor([[30.0, 0.0], [0.0, 30.0]])
    entropies = [(-x.softmax(1) * x.log_softmax(1)).sum(1).mean() for x in (one_class, two)]
    assert torch.allclose(entropies[0], entropies[1])  # which does not tell them apart
    assert information_loss(two) < information_loss(one_class) - 0.5


def test_images_join_the_class_of_the_nearest_centroid():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.6, 0.5]])
    p = torch.tensor([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.1, 0.9, 0], [0.2, 0.8, 0], [0.7, 0.3, 0]])
    assert pseudo_labels(features, p).tolist() == [0, 0, 1, 1, 0]  # of three classes, one is never seen
