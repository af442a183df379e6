import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from neq.networks import library_layers
from neq.networks.library_layers import LayerNorm2d, torch_class, within

layers = pytest.importorskip("timm.layers")


class Scaled(nn.LayerNorm):
    """A norm with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class Heir(layers.BatchNormAct2d):  # type: ignore[name-defined]  # timm lists its layers at run time
    """A norm of someone's own that keeps timm's forward."""


@pytest.mark.parametrize(
    ("module", "kind", "inside"),
    [
        (nn.BatchNorm2d(4), _BatchNorm, []),
        (nn.LayerNorm(4), nn.LayerNorm, []),
        (layers.Linear(4, 4), nn.Linear, []),
        (layers.BatchNormAct2d(4), nn.BatchNorm2d, [nn.ReLU]),
        (layers.BatchNormAct2d(4, apply_act=False), nn.BatchNorm2d, []),
        (
            layers.BatchNormAct2d(4, act_layer=nn.SiLU, drop_layer=nn.Dropout),
            nn.BatchNorm2d,
            [nn.Dropout, nn.SiLU],
        ),
        (Heir(4), nn.BatchNorm2d, [nn.ReLU]),
        (layers.GroupNormAct(32, act_layer=nn.GELU), nn.GroupNorm, [nn.GELU]),
        (layers.LayerNorm2d(4), LayerNorm2d, []),
        (Scaled(4), None, []),
        (nn.SyncBatchNorm(4), None, []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_that_compute_as_torchs_are_known(module, kind, inside):
    assert torch_class(module) is kind
    assert [type(part) for part in within(module)] == inside


def test_a_class_that_computes_otherwise_is_not_taken_for_torchs(monkeypatch):
    """As a later version of the library might, under the same name."""
    monkeypatch.setattr(layers, "LayerNorm", Scaled)
    library_layers._library_class.cache_clear()
    assert torch_class(Scaled(4)) is None
    library_layers._library_class.cache_clear()


def test_examples_leave_the_random_state():
    library_layers._library_class.cache_clear()
    before = torch.get_rng_state()
    assert torch_class(layers.Linear(4, 4).requires_grad_(False)) is nn.Linear
    torch.set_rng_state(before)
    library_layers._library_class.cache_clear()
    module = nn.Module.__new__(layers.Linear)
    nn.Module.__init__(module)
    assert torch_class(module) is nn.Linear
    assert torch.equal(torch.get_rng_state(), before)


def test_a_patched_forward_and_fast_norms_are_unknown():
    patched, fast = layers.BatchNormAct2d(4), layers.LayerNorm(4)
    patched.forward = torch.sigmoid
    fast._fast_norm = True
    assert torch_class(patched) is torch_class(fast) is None
