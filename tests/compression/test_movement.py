import pytest
import torch

from neq.compression.movement import movement, run_start
from neq.results.best_network import load_best
from neq.utils.errors import UserError


def test_the_start_of_a_run_is_rebuilt_to_the_bit(tiny_run):
    best = load_best(tiny_run)
    start = run_start(best)
    same = [
        (now == then).flatten(1).all(1)
        for now, then in zip(best.network.parameters(), start.parameters(), strict=True)
        if now.dim() == 4
    ]
    share = float(torch.cat(same).double().mean())
    assert 0.5 < share < 1  # what a budget of a tenth leaves alone is what the run started from
    assert not start.training


def test_movement_is_one_minus_the_cosine(tiny_run):
    best = load_best(tiny_run)
    start = run_start(best)
    modules = best.network.named_modules()
    first, *others = (name for name, each in modules if isinstance(each, torch.nn.Conv2d))
    best.network.load_state_dict(start.state_dict())
    weight = best.network.get_parameter(f"{first}.weight")
    with torch.no_grad():
        weight[0] *= -1
        weight[1] *= 3
    images = torch.randn(2, 3, best.image_size, best.image_size)
    moved = movement(best, start, images)
    assert moved[first][0] == pytest.approx(2)
    assert moved[first][1:].abs().max() < 1e-9
    assert moved[others[0]].max() > 0  # it reads another input
    assert set(moved) == {first, *others}
    assert best.head not in moved


def test_of_a_network_that_was_changed_the_start_is_not_known(tiny_run):
    best = load_best(tiny_run)
    head = best.network.get_submodule(best.head)
    best.network.set_submodule(best.head, torch.nn.Linear(head.in_features, head.out_features + 1))
    with pytest.raises(UserError, match="holds another network than its run started from"):
        run_start(best)
