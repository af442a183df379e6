import math
from statistics import NormalDist

import optuna
import pytest
from scipy import stats

from neq.sweeps import Choice, Drawn, EarlyTerminate, Sweep
from neq.sweeps.search import draw, labels, pruner, sampler
from neq.sweeps.storage import quiet

DRAWS = 400


class Uniform:
    """A trial that draws everything from one stream, and says what it was asked."""

    def __init__(self, seed):
        self._study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        self._trial = self._study.ask()

    def __getattr__(self, name):
        return getattr(self._trial, name)


def drawn(parameter):
    return [draw(Uniform(seed), {"p": parameter})["p"] for seed in range(DRAWS)]


def natural(low, high):
    """The cumulative distribution of exp(U) for U uniform."""
    return lambda x: (math.log(x) - low) / (high - low)


LOG2 = math.log(2)
CONTINUOUS = {
    "uniform": ({"min": -1.0, "max": 3.0}, lambda x: (x + 1) / 4),
    "log_uniform": ({"min": -2.0, "max": 1.0}, natural(-2, 1)),
    "inv_log_uniform": ({"min": -1.0, "max": 2.0}, natural(-2, 1)),
    "log_uniform_values": ({"min": 0.5, "max": 2.0}, natural(-LOG2, LOG2)),
    "inv_log_uniform_values": ({"min": 0.5, "max": 2.0}, natural(-LOG2, LOG2)),
    "normal": ({"mu": 1.0, "sigma": 2.0}, NormalDist(1, 2).cdf),
    "log_normal": ({"mu": 0.0, "sigma": 0.5}, lambda x: NormalDist(0, 0.5).cdf(math.log(x))),
    "beta": ({"a": 2.0, "b": 5.0}, lambda x: float(stats.beta(2, 5).cdf(x))),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_distribution_is_the_one_that_its_name_says(name):
    numbers, cumulative = CONTINUOUS[name]
    found = stats.kstest([cumulative(value) for value in drawn(Drawn(name, numbers))], "uniform")
    assert found.pvalue > 1e-3  # the seeds are fixed


@pytest.mark.parametrize(
    "name", ["uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta"]
)
def test_a_quantized_distribution_gives_multiples_of_q(name):
    numbers, _ = CONTINUOUS[name]
    values = drawn(Drawn(f"q_{name}", {**numbers, "q": 0.25}))
    assert len(set(values)) > 2
    assert all(value == round(value / 0.25) * 0.25 for value in values)


def test_a_whole_quantum_gives_whole_numbers():
    values = drawn(Drawn("q_uniform", {"min": 0, "max": 10, "q": 5}))
    assert set(values) == {0, 5, 10}
    assert all(type(value) is int for value in values)


def test_int_uniform_has_both_ends():
    values = drawn(Drawn("int_uniform", {"min": 2, "max": 4}))
    assert set(values) == {2, 3, 4}
    assert all(type(value) is int for value in values)


def test_choices_come_with_their_probabilities_and_never_without():
    values = drawn(Choice(("a", "b", "c"), (0.75, 0.25, 0.0)))
    assert set(values) == {"a", "b"}
    assert abs(values.count("a") / DRAWS - 0.75) < 0.07
    assert drawn(Choice((3,)))[:2] == [3, 3]


def test_values_that_a_storage_does_not_take_are_drawn_as_they_are():
    assert {str(value) for value in drawn(Choice(([1, 2], [3])))} == {"[1, 2]", "[3]"}
    assert labels((1, True)) == ("1", "true")
    assert labels(("a", None, 2.5)) == ("a", None, 2.5)


def test_parameters_are_drawn_by_name_so_that_their_order_in_the_file_means_nothing():
    here = {"b": Drawn("uniform", {"min": 0, "max": 1}), "a": Drawn("uniform", {"min": 0, "max": 1})}
    there = dict(sorted(here.items()))
    assert draw(Uniform(3), here) == draw(Uniform(3), there)


def test_a_random_search_draws_by_the_trials_number_and_bayes_by_tpe():
    sweep = Sweep(program="train_classification.py", method="random", parameters={})
    first, again, other = (sampler(sweep, number, 7) for number in (3, 3, 4))
    assert isinstance(first, optuna.samplers.RandomSampler)

    def one(chosen):
        trial = optuna.create_study(sampler=chosen).ask()
        return trial.suggest_float("x", 0, 1)

    assert one(first) == one(again) != one(other)
    with quiet():
        bayes = sampler(sweep.model_copy(update={"method": "bayes"}), 0, 7)
    assert isinstance(bayes, optuna.samplers.TPESampler)


def stopped(early, curves):
    """Which of the runs the pruner stops after which epoch; runs go one after another."""
    study = optuna.create_study(direction="maximize", pruner=pruner(early))
    found = []
    for curve in curves:
        trial = study.ask()
        at = None
        for epoch, value in enumerate(curve, 1):
            trial.report(value, epoch)
            if trial.should_prune():
                at = epoch
                break
        study.tell(trial, curve[-1] if at is None else None, state=None if at is None else PRUNED)
        found.append(at)
    return found


PRUNED = optuna.trial.TrialState.PRUNED


def test_hyperband_stops_runs_that_lag_at_a_bracket_and_no_other():
    good, bad = [90.0 + epoch for epoch in range(9)], [10.0 + epoch for epoch in range(9)]
    early = EarlyTerminate(type="hyperband", min_iter=3, eta=3)
    assert stopped(early, [good, bad, good]) == [None, 3, None]
    # max_iter 9, s 1, eta 3: the bracket is at epoch 3 too.
    assert stopped(EarlyTerminate(type="hyperband", max_iter=9, s=1), [good, bad]) == [None, 3]
    assert stopped(None, [good, bad]) == [None, None]


def test_the_best_of_a_band_continue():
    """With eta 1.5 the bands are at 2, 3, 4, ...; of three runs at one two continue, of two one."""
    early = EarlyTerminate(type="hyperband", min_iter=2, eta=1.5)
    rows = [[value] * 5 for value in (0.9, 0.8, 0.85, 0.1)]
    assert stopped(early, rows) == [None, 2, 3, 2]
