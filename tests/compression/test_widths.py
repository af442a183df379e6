import pytest
import torch
from torch import nn

from neq.compression.widths import changed_widths, resized, widths


class Toy(nn.Module):
    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, hidden, 3)
        self.norm = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, groups=hidden, bias=False)
        self.group = nn.GroupNorm(2, hidden)
        self.layer = nn.LayerNorm(hidden)
        self.fc = nn.Linear(hidden, 5)

    def forward(self, x):
        return self.fc(self.layer(self.group(self.depthwise(self.norm(self.conv(x)))).mean((2, 3))))


def test_resized_layers_have_the_shapes_of_a_network_of_these_widths():
    layers = changed_widths(widths(Toy(8)), widths(Toy(4)))
    assert layers["depthwise"] == {"in_channels": 4, "out_channels": 4, "groups": 4}
    assert layers["conv"] == {"out_channels": 4}
    assert layers["fc"] == {"in_features": 4}
    assert layers["layer"] == {"normalized_shape": [4]}
    made = resized(Toy(8), layers)
    assert {k: v.shape for k, v in made.state_dict().items()} == {
        k: v.shape for k, v in Toy(4).state_dict().items()
    }
    assert all(each.isfinite().all() for each in made.parameters())
    assert made(torch.rand(2, 3, 9, 9)).shape == (2, 5)


def test_networks_of_equal_widths_differ_in_nothing():
    assert changed_widths(widths(Toy()), widths(Toy())) == {}


def test_a_width_that_a_layer_does_not_have_is_refused():
    with pytest.raises(ValueError, match="fc, a Linear, has no out_channels"):
        resized(Toy(), {"fc": {"out_channels": 3}})
    with pytest.raises(ValueError, match="has no num_features"):
        resized(nn.Sequential(nn.ReLU()), {"0": {"num_features": 3}})
