import pytest
import torch

from neq.backward import Plan
from neq.config import RunSettings, config_model
from neq.networks.neurons import neuron_table
from neq.training.optimizer import make_optimizer
from tests.toys import SHAPE, toy


def decayed(**settings):
    network = toy()
    selection = {"depthwise": torch.tensor([1]), "hidden": torch.arange(16)}
    plan = Plan(network, neuron_table(network, SHAPE), selection, "train")
    optimizer = make_optimizer(plan, config_model()(run_config=RunSettings(weight_decay=0.1, **settings)))
    by_id = {id(parameter): name for name, parameter in plan.named_parameters()}
    groups = {
        group["weight_decay"]: {by_id[id(parameter)] for parameter in group["params"]}
        for group in optimizer.param_groups
    }
    assert set.union(*groups.values()) == set(by_id.values())
    return groups.get(0.1, set()), optimizer


def test_no_wd_keys_mean_module_kinds():
    """By parameter name alone `norm` would match nothing in most networks."""
    weights = {"depthwise.weight", "hidden.weight", "head.weight"}
    norm_weights = {f"norm{i}.weight" for i in (1, 2, 3)}
    norm_biases = {f"norm{i}.bias" for i in (1, 2, 3)}
    biases = {"depthwise.bias", "hidden.bias", "head.bias"}
    assert decayed()[0] == weights
    assert decayed(no_wd_keys=["norm"])[0] == weights | biases
    assert decayed(no_wd_keys=["bias"])[0] == weights | norm_weights
    assert decayed(no_wd_keys=[])[0] == weights | norm_weights | biases | norm_biases


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_by_name(name, kind):
    assert type(decayed(optimizer_name=name)[1]) is kind


def test_momentum_reaches_sgd():
    assert decayed(momentum=0.7)[1].param_groups[0]["momentum"] == 0.7
