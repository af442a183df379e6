import pytest
import torch

from neq.budget import StepSpec
from neq.config import resolve
from neq.networks.neurons import neuron_table
from neq.utils.errors import UserError
from tests.toys import SHAPE, toy


def test_a_configuration_names_its_step():
    config = resolve(
        {}, {"image_size": 48, "optimizer_name": "sgd", "momentum": 0.9, "precision": "bf16"}
    ).config
    spec = StepSpec.of_config(config, (8, 4), ["stem"])
    assert spec == StepSpec((8, 4), (3, 48, 48), "frontier", "sgd with momentum", "bf16", "exact", ("stem",))
    assert StepSpec.of_config(resolve({}, {"momentum": 0}).config, (8,)).optimizer == "sgd"


def test_forward_passes_grow_and_shrink_together():
    spec = StepSpec((8, 4), SHAPE)
    assert (spec.batch_size, spec.images) == (8, 12)
    assert spec.with_batch_size(16).forwards == (16, 8)
    assert spec.with_batch_size(3).forwards == (3, 2)
    assert spec.with_batch_size(8) == spec
    assert StepSpec((8, 5), SHAPE, micro_batch=3).kept_together == (3, 2)


def test_a_spec_makes_the_plan_of_its_step():
    network = toy()
    plan = StepSpec((2,), SHAPE, "frozen", bias_layers=("depthwise",)).plan(
        network, neuron_table(network, SHAPE), {"pointwise": torch.tensor([1, 5])}
    )
    assert plan.norm_mode == "frozen"
    assert {"pointwise.weight", "depthwise.bias"} <= plan.parts.keys()
    assert "stem.weight" not in plan.parts


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"forwards": ()}, r"forwards \(\) .* 1 image or more"),
        ({"forwards": (4, 0)}, r"forwards \(4, 0\) .* 1 image or more"),
        ({"forwards": (4,), "micro_batch": -1}, "micro_batch -1"),
        ({"forwards": (4,), "optimizer": "sdg"}, "optimizer 'sdg' is unknown; did you mean 'sgd'"),
        ({"forwards": (4,), "precision": "fp16"}, "precision 'fp16' is unknown"),
        ({"forwards": (4,), "checkpoint_segments": 0}, "checkpoint_segments 0 is not allowed"),
    ],
)
def test_an_impossible_step_is_refused(given, error):
    with pytest.raises(UserError, match=error):
        StepSpec(image_shape=SHAPE, **given)
