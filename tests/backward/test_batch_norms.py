import pytest
import torch
from torch import nn

from neq.backward.batch_norms import BatchStatsNorm, FrozenNorm, frozen_batch_norm, is_plain_batch_norm


def norm(affine=True):
    made = nn.BatchNorm2d(3, affine=affine)
    nn.init.uniform_(made.running_mean, -1, 1)
    nn.init.uniform_(made.running_var, 0.5, 2)
    if affine:
        nn.init.uniform_(made.weight, 0.5, 2)
        nn.init.uniform_(made.bias, -1, 1)
    return made.double()


@pytest.mark.parametrize("affine", [True, False])
def test_a_frozen_norm_is_a_scale_and_a_shift(affine):
    torch.manual_seed(0)
    module = norm(affine)
    x, before = torch.randn(4, 3, 2, 2).double(), torch.randn(3).double()
    frozen = FrozenNorm(module, module.bias)
    scale, shift = (vector.view(1, -1, 1, 1) for vector in frozen.scale_and_shift(before))
    with torch.no_grad():
        assert torch.allclose(x * scale + shift, module.eval()(x + before.view(1, -1, 1, 1)), rtol=1e-12)
        assert torch.allclose(frozen_batch_norm(frozen)(x), module(x), rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_weighed_as_torch_weighs_them(momentum):
    module = nn.BatchNorm2d(3, momentum=momentum)
    weights = [BatchStatsNorm(module, module, None).running()[2] for _ in range(3)]
    assert weights == ([0.1] * 3 if momentum else [1, 1 / 2, 1 / 3])
    assert module.num_batches_tracked == 3


def test_norms_that_compute_otherwise_are_not_plain():
    class Other(nn.BatchNorm2d):
        def forward(self, x):
            return x

    assert is_plain_batch_norm(nn.BatchNorm2d(3))
    assert not is_plain_batch_norm(Other(3))
    assert not is_plain_batch_norm(nn.BatchNorm2d(3, track_running_stats=False))
    assert not is_plain_batch_norm(nn.GroupNorm(1, 3))
