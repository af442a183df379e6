"""Reading float networks: their operations, folded norms, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.int8 import Add, Conv, MaxPool, Multiply, Pool, Table
from neq.int8.trace import read_network
from neq.utils.errors import UserError
from tests.int8.float_toys import Excited, excited, pictures


def outputs(network, x):
    with torch.no_grad():
        return network(x)


class Around(nn.Module):
    """A stem, what a test puts behind it, and a classifier."""

    def __init__(self, middle, channels=4):
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 4, 3, padding=1), middle
        self.fc = nn.Linear(channels, 5)

    def forward(self, x):
        return self.fc(self.middle(self.stem(x)).mean((2, 3)))


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_a_network_is_read_with_its_norms_folded():
    network, x = excited(), pictures()
    network.train()
    found = read_network(network, 16)
    assert network.training
    network.eval()
    torch.testing.assert_close(found.run(x), outputs(network, x), rtol=1e-4, atol=1e-5)
    kinds = [(each.name, each.kind) for each in found.operations]
    assert [name for name, kind in kinds if kind is Conv] == [
        *("stem.0", "expand", "depthwise", "squeeze", "excite", "project", "hidden")
    ]
    assert [kind for _, kind in kinds if kind is not Conv] == [
        *(MaxPool, Table, Pool, Table, Multiply, Add, Pool, Table)
    ]
    assert found.head.name == "classifier"
    limits = {each.name: each.limits for each in found.operations}
    assert limits["stem.0"] == (0, 6)
    assert limits["depthwise"] == limits["squeeze"] == (0, torch.inf)
    assert limits["project"] == (-torch.inf, torch.inf)
    assert next(limits[each.name] for each in found.operations if each.kind is Add) == (0, torch.inf)


SAME = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "function": Of(F.relu),
    "method": Of(lambda x: x.relu_()),
    "clamp": Of(lambda x: x.clamp(min=0)),
    "clamp_min": Of(lambda x: x.clamp_min(0)),
}


@pytest.mark.parametrize("middle", SAME.values(), ids=SAME)
def test_one_operation_is_read_in_every_spelling(middle):
    network, x = Around(middle).eval(), pictures(4)
    found = read_network(network, 16)
    assert [(each.name, each.limits) for each in found.operations][:1] == [("stem", (0, torch.inf))]
    assert len(found.operations) == 2
    torch.testing.assert_close(found.run(x), outputs(network, x))


def mutated(x):
    y = x * x
    y.relu_()
    return y + x


OTHERS = {
    "a clamp whose input is read too": (Of(lambda x: x.relu() + x), [Conv, Table, Add, Pool]),
    "a clamp of a clamp": (Of(lambda x: x.clamp(-1, 4).relu()), [Conv, Table, Pool]),
    "a value that is changed in place": (Of(mutated), [Conv, Multiply, Add, Pool]),
    "a map changed after it was read": (
        Of(lambda x: x.sigmoid() + x.relu_()),
        [Conv, Table, Table, Add, Pool],
    ),
    "a value before a map": (Of(lambda x: x.mean((2, 3), keepdim=True) * x), [Conv, Pool, Multiply, Pool]),
    "a dropped map that is read too": (
        Of(lambda x: F.dropout(x, 0.5, False).relu() + x),
        [Conv, Table, Add, Pool],
    ),
    "a norm without weights": (nn.BatchNorm2d(4, affine=False), [Conv, Pool]),
    "a norm of a norm": (nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4)), [Conv, Pool]),
    "nothing": (nn.Identity(), [Conv, Pool]),
}


@pytest.mark.parametrize(("middle", "kinds"), OTHERS.values(), ids=OTHERS)
def test_operations_are_joined_only_where_that_is_right(middle, kinds):
    network, x = Around(middle).eval(), pictures(4)
    found = read_network(network, 16)
    assert [each.kind for each in found.operations] == kinds
    torch.testing.assert_close(found.run(x), outputs(network, x), rtol=1e-4, atol=1e-5)


def shared():
    conv = nn.Conv2d(4, 4, 1)
    return nn.Sequential(conv, nn.ReLU(), conv)


REFUSED = {
    "cat": (Around(Of(lambda x: torch.cat((x, x), 1)), 8), "no operation cat as in middle (Of)"),
    "a padding of its own": (Around(nn.Conv2d(4, 4, 3)), "the convolution middle is of another kind"),
    "dilation": (Around(nn.Conv2d(4, 4, 3, 1, 1, 2)), "the convolution middle is of another kind"),
    "a kernel of two sides": (Around(nn.Conv2d(4, 4, (1, 3), 1, (0, 1))), "the convolution middle"),
    "a norm behind an activation": (
        Around(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))),
        "no operation batch_norm as in middle.1 (BatchNorm2d)",
    ),
    "a norm of batch statistics": (
        Around(nn.BatchNorm2d(4, track_running_stats=False)),
        "no operation batch_norm as in middle (BatchNorm2d)",
    ),
    "a sum with a number": (Around(Of(lambda x: x + 3)), "no operation add as in middle (Of)"),
    "a sum that is repeated": (
        Around(Of(lambda x: x + x.mean((2, 3), keepdim=True))),
        "no operation add as in middle (Of)",
    ),
    "average pooling": (Around(nn.AvgPool2d(2)), "no operation avg_pool2d as in middle (AvgPool2d)"),
    "a wide window": (Around(nn.MaxPool2d(9, 2, 1)), "no operation max_pool2d as in middle"),
    "ceil mode": (Around(nn.MaxPool2d(2, ceil_mode=True)), "no operation max_pool2d as in middle"),
    "dropout that is always on": (
        Around(Of(lambda x: F.dropout(x, 0.5, True))),
        "no operation dropout as in",
    ),
    "a layer norm": (Around(nn.LayerNorm(16)), "no operation layer_norm as in middle (LayerNorm)"),
    "a layer that is called twice": (Around(shared()), "is called twice"),
    "no linear layer at its end": (
        nn.Sequential(nn.Conv2d(3, 5, 3, 1, 1), nn.AdaptiveAvgPool2d(1)),
        "linear",
    ),
    "an activation at its end": (nn.Sequential(Around(nn.Identity()), nn.ReLU()), "end with a linear layer"),
    "no map of one position": (
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)),
        "no operation flatten",
    ),
    "one row of all images": (
        Around(Of(lambda x: x.mean((2, 3)).flatten().view(1, 8, 1, 1)), 8),
        "no operation flatten as in middle",
    ),
    "a branch": (Around(Of(lambda x: x if x.sum() > 0 else -x)), "cannot be traced"),
}


@pytest.mark.parametrize(("network", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_int8_networks_do_not_have_is_refused_by_name(network, reason):
    with pytest.raises(UserError, match="cannot be quantized") as caught:
        read_network(network.eval(), 16)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["expand.weight", "hidden.bias", "norm.running_var", "classifier.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(name, value):
    network = Excited().eval()
    network.state_dict()[name].view(-1)[1] = value
    if name == "norm.running_var" and value == float("inf"):
        read_network(network, 16)  # its channel is 0
        return
    layer = name.replace("norm", "expand").rpartition(".")[0]
    with pytest.raises(UserError, match=rf"the (weight|bias) of {layer} is not finite"):
        read_network(network, 16)
