import pytest
import torch
from torch import nn

from neq.compression import compress, read_start
from neq.compression.make import inputs_of
from neq.compression.run_images import open_images
from neq.compression.steps import fine_tuning, with_statistics
from neq.results.best_network import load_best
from neq.utils.errors import UserError


def test_norms_get_the_mean_statistics_of_the_batches():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batches = [torch.randn(8, 3, 5, 5) for _ in range(3)]
    made = with_statistics(network, iter(batches))
    with torch.no_grad():
        maps = [network[0](images) for images in batches]
    mean = torch.stack([each.mean((0, 2, 3)) for each in maps]).mean(0)
    variance = torch.stack([each.var((0, 2, 3)) for each in maps]).mean(0)
    torch.testing.assert_close(made[1].running_mean, mean)
    torch.testing.assert_close(made[1].running_var, variance)
    assert not any(each.training for each in made.modules())
    assert made[1].momentum == network[1].momentum
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_steps_come_in_the_recipe_in_their_order(tiny_run):
    pytest.importorskip("tensorly")
    best = load_best(tiny_run)
    steps = {"low_rank": {"share": 0.6}, "attention": {"kind": "se", "layers": ["blocks.2"]}}
    with open_images(best) as images:
        made = compress(read_start(best), {**steps, "sparsify": {"share": 0.5}}, inputs_of(best, images))
    assert [each.name for each in made.recipe.transforms] == ["low_rank", "attention", "sparse"]
    assert made.recipe.build().state_dict().keys() == made.network.state_dict().keys()


def test_fine_tuning_has_the_settings_of_the_run_but_for_those_given(tiny_run, tmp_path):
    with pytest.raises(UserError, match="is no compressed network"):
        fine_tuning(tiny_run, tmp_path, {})
    for name in ("config.yaml", "recipe.json"):
        (tmp_path / name).write_bytes((tiny_run / name).read_bytes())
    (tmp_path / "best.safetensors").write_bytes((tiny_run / "checkpoint/best.safetensors").read_bytes())
    before, after = load_best(tiny_run).config, fine_tuning(tiny_run, tmp_path, {"n_epochs": 7}).config
    assert after.net_config.weights == str(tmp_path / "best.safetensors")
    assert after.run_config == before.run_config.model_copy(update={"n_epochs": 7})
    assert after.data_provider == before.data_provider
