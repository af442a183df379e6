"""Integer programming against enumeration, evolution against both, and the exact budget."""

import ctypes
import itertools
import random
from statistics import mean

import pytest

from neq.scheme_search.choice import Option, Problem, best_choice, by_evolution, by_milp


def drawn(seed, convs=5, shares=3, scale=1):
    """A random problem whose options may also be worth less than nothing, and its limit."""
    stream = random.Random(seed)
    options = []
    for conv in range(convs):
        depth, opening, price = stream.randint(0, 40), stream.randint(0, 20), stream.randint(1, 30)
        options += [
            Option(conv, at / shares, stream.uniform(-0.5, 3), scale * (opening + at * price), scale * depth)
            for at in range(1, shares + 1)
        ]
    return Problem(0, 0.0, scale * stream.randint(0, 10), tuple(options)), scale * stream.randint(100, 250)


def every_choice(problem):
    """All choices of at most one option a conv."""
    convs = {option.conv for option in problem.options}
    of_conv = ([None, *(each for each in problem.options if each.conv == conv)] for conv in sorted(convs))
    for picked in itertools.product(*of_conv):
        yield [option for option in picked if option is not None]


def best_value(problem, limit):
    return max(problem.value(each) for each in every_choice(problem) if problem.cost(each) <= limit)


def exact(problem, cost):
    """The cost of a scheme by a function of the chosen options."""
    by_place = {(option.conv, option.share): option for option in problem.options}

    def used(scheme):
        pairs = zip(scheme.indices, scheme.ratios, strict=True)
        return cost([by_place[pair] for pair in pairs if pair[1]])

    return used


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("scale", [1, 10**7])
def test_integer_programming_finds_the_best_of_all(seed, scale):
    problem, limit = drawn(seed, convs=4, scale=scale)
    chosen = by_milp(problem, limit)
    assert problem.cost(chosen) <= limit
    assert len({option.conv for option in chosen}) == len(chosen)
    assert problem.value(chosen) == pytest.approx(best_value(problem, limit))


def test_the_solver_prints_nothing(capfd):
    for seed, part in ((0, 3), (2, 7), (5, 7), (6, 7)):  # of which it repairs solutions
        problem, limit = drawn(seed, convs=30, shares=4)
        assert by_milp(problem, part * limit)
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""


def test_a_choice_that_fills_the_budget_exactly_is_found():
    options = (Option(0, 1.0, 1.0, 30_000_001, 4), Option(1, 1.0, 1.0, 70_000_000, 3))
    problem = Problem(0, 0.0, 5, options)
    assert by_milp(problem, 100_000_010) == list(options)
    assert len(by_milp(problem, 100_000_009)) == 1


def test_evolution_comes_close_to_the_optimum():
    shares = []
    for seed in range(12):
        problem, limit = drawn(seed, convs=6)
        found = by_evolution(problem, limit, seed)
        assert problem.cost(found) <= limit
        shares.append(problem.value(found) / (best_value(problem, limit) or 1.0))
    assert max(shares) <= 1 + 1e-9
    assert mean(shares) > 0.97


def test_evolution_repeats_itself():
    problem, limit = drawn(3, convs=12)
    assert by_evolution(problem, limit, 7) == by_evolution(problem, limit, 7)


@pytest.mark.parametrize("solve", [by_milp, by_evolution])
@pytest.mark.parametrize("error", [0.9, 1.0, 1.15])
def test_the_exact_cost_never_exceeds_the_limit(solve, error):
    reached = []
    for seed in range(10):
        problem, limit = drawn(seed)

        def real(chosen, base=problem.base):
            return round(error * sum(option.cost for option in chosen)) + base

        used = exact(problem, real)
        choice = best_choice([problem], limit, used, solve)
        assert choice.used == used(choice.scheme) <= limit
        fitting = [each for each in every_choice(problem) if used(problem.scheme(each)) <= limit]
        reached.append(choice.predicted / max(map(problem.value, fitting)))
    assert mean(reached) > 0.8


def test_the_number_of_biases_is_chosen_with_the_weights():
    weights = Option(3, 0.5, 2.0, 6, 0)
    problems = [
        Problem(count, gain, base, (weights,)) for count, gain, base in ((0, 0, 1), (2, 1.5, 4), (9, 2.5, 8))
    ]

    def used(scheme):
        return {0: 1, 2: 4, 9: 8}[scheme.n_bias_update] + 6 * (3 in scheme.indices)

    for limit, biases, convs in ((5, 2, (0,)), (7, 0, (3,)), (10, 2, (3,)), (14, 9, (3,))):
        choice = best_choice(problems, limit, used, by_milp)
        assert (choice.scheme.n_bias_update, choice.scheme.indices) == (biases, convs)


def test_what_is_worth_nothing_is_not_chosen():
    problem = Problem(0, 0.0, 1, (Option(2, 1.0, -1.0, 1, 0), Option(4, 1.0, 0.0, 1, 0)))
    choice = best_choice([problem], 100, exact(problem, problem.cost), by_milp)
    assert (choice.scheme.indices, choice.scheme.ratios, choice.used) == ((0,), (0.0,), 1)
