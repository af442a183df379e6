from itertools import pairwise

import pytest

from neq.config import RunSettings
from neq.training.schedule import learning_rate, total_epochs

BASE = {"n_epochs": 10, "warmup_epochs": 2, "base_lr": 1.0, "warmup_lr": 0.2, "final_lr": 0.1}
STEPS = 5


def rates(**settings):
    chosen = RunSettings(**{**BASE, **settings})
    return [
        learning_rate(chosen, chosen.base_lr, step, STEPS) for step in range(total_epochs(chosen) * STEPS)
    ]


def test_warmup_comes_on_top_of_n_epochs_and_is_linear_per_iteration():
    all_rates = rates()
    assert len(all_rates) == 12 * STEPS
    assert all_rates[:10] == pytest.approx([0.2 + 0.08 * step for step in range(10)])
    assert all_rates[10] == 1.0


def test_cosine_falls_every_iteration_to_the_final_rate():
    cosine = rates()[10:]
    assert all(a > b for a, b in pairwise(cosine))
    assert cosine[25] == pytest.approx((1.0 + 0.1) / 2)
    assert 0.1 < cosine[-1] < 0.11


def test_gamma_step():
    stepped = rates(lr_schedule_name="gamma_step", lr_step_size=4, lr_step_gamma=0.5)[10:]
    assert stepped == [0.5 ** (step // STEPS // 4) for step in range(50)]


def test_multi_step():
    stepped = rates(lr_schedule_name="multi_step", lr_step_size=(3, 7), lr_step_gamma=0.1)[10:]
    assert stepped[14] == 1.0
    assert stepped[15] == stepped[34] == pytest.approx(0.1)
    assert stepped[35] == pytest.approx(0.01)


def test_without_warmup_the_first_step_has_the_base_rate():
    assert rates(warmup_epochs=0)[0] == 1.0


@pytest.mark.parametrize(
    "settings", [{}, {"warmup_epochs": 0}, {"lr_schedule_name": "gamma_step", "lr_step_size": 4}]
)
def test_a_schedule_that_restarts_is_two(settings):
    whole = RunSettings(**{**BASE, **settings})
    count = total_epochs(whole) * STEPS
    for initial in (1, 3):
        found = [learning_rate(whole, 1.0, step, STEPS, initial) for step in range(count)]
        first = whole.model_copy(update={"n_epochs": initial, "warmup_epochs": 0})
        others, change = whole.model_copy(update={"n_epochs": 10 - initial}), initial * STEPS
        assert found[:change] == [learning_rate(first, 1.0, step, STEPS) for step in range(change)]
        assert found[change:] == [learning_rate(others, 1.0, step, STEPS) for step in range(count - change)]
