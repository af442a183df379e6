import math

import torch

from neq.partition.costs import macs, parameters
from neq.partition.networks import BranchedNetwork
from neq.partition.proxies import grad_norm, scores, synflow
from tests.partition.toys import IMAGE, base, two


def batch():
    return torch.randn(8, 3, IMAGE, IMAGE), torch.arange(8) % 5


def test_scores_are_the_same_every_time_and_differ_between_networks():
    images, labels = batch()
    state = torch.get_rng_state()
    one, again = (scores(two(), images, labels, 5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one == again
    assert (one["parameters"], one["macs"]) == (parameters(two(), 5), macs(two(), 5))
    other = scores(base(), images, labels, 5)
    assert all(other[name] != one[name] for name in one)
    assert all(math.isfinite(value) for value in one.values())


def test_grad_norm_is_that_of_autograd():
    images, labels = batch()
    network = BranchedNetwork(two(), 5)
    found = grad_norm(network, images, labels)
    network.train()
    network.dropout.p = 0.0
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    squares = sum(float(parameter.grad.double().square().sum()) for parameter in network.parameters())
    assert abs(found - squares**0.5) < 1e-4 * found


def test_synflow_counts_paths():
    network = BranchedNetwork(base(act="ReLU"), 5)
    twice = BranchedNetwork(base(act="ReLU"), 5)
    twice.load_state_dict(network.state_dict())
    with torch.no_grad():
        twice.classifier.weight.mul_(2)
        twice.classifier.bias.mul_(2)
    assert synflow(twice, IMAGE) > synflow(network, IMAGE)
