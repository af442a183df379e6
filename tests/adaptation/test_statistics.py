import torch
from torch import nn

from neq.adaptation.statistics import adapt_statistics
from tests.adaptation.points import close


def test_a_norm_of_known_values():
    norm = nn.BatchNorm2d(1).double().eval()
    images = torch.tensor([1.0, 3.0], dtype=torch.float64).view(2, 1, 1, 1)
    adapt_statistics(norm, [images])
    assert close(norm(images).flatten(), [-0.999995000037, 0.999995000037])
    running = nn.BatchNorm2d(1, momentum=None).double()
    running(images)
    assert not close(running.eval()(images).flatten()[1], 0.999995000037)  # torch's own is n / (n - 1) larger


def test_batches_of_other_means_count_in_the_variance_and_the_rest_stays():
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(12, 2, 4, 4) + torch.arange(12).view(-1, 1, 1, 1)
    adapt_statistics(network, images.split([4, 8]))
    assert torch.allclose(network[0].running_mean, images.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(network[0].running_var, images.var((0, 2, 3), unbiased=False), rtol=1e-5)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{i}.running_{kind}" for i in (0, 2) for kind in ("mean", "var")}
    assert not network.training
