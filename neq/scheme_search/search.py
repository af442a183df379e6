"""The search of a scheme: contributions, the best sum within the budget, and runs that test the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from scipy.stats import spearmanr

from neq.config import schemes
from neq.config.budget_rules import at_home
from neq.scheme_search.choice import Choice, Option, Solve, best_choice, by_evolution, by_milp
from neq.scheme_search.contributions import Contributions, Measured, Part, Scores
from neq.scheme_search.costs import HEAD, SchemeCosts
from neq.selection import StaticScheme
from neq.utils.errors import UserError
from neq.utils.seeds import seed_for

SHARES = (0.125, 0.25, 0.5, 1.0)
# The numbers of biases that are tried, as shares of all convs.
BIASES = (0.125, 0.25, 0.5, 1.0)

# Trains schemes for a purpose, "contributions", "head" or "controls", and returns their results; without
# those that diverged.
Measure = Callable[[str, Sequence[StaticScheme]], Mapping[StaticScheme, Measured]]
# Scores parts after the head has been trained with this result.
Score = Callable[[Measured, Sequence[Part]], Scores]


@dataclass(frozen=True)
class Trained:
    """A scheme that was trained to test the sum of contributions.

    Args:
        name: of a published scheme, `random N`, or `found`.
        scheme: its lists.
        used: its exact cost.
        predicted: the sum of its contributions; none where a part of it was not measured.
        gain: measured, over the head alone; none where it diverged.
        result: of its runs.
    """

    name: str
    scheme: StaticScheme
    used: int
    predicted: float | None
    gain: float | None
    result: Measured | None


@dataclass(frozen=True)
class Search:
    """A finished search.

    Args:
        costs: of schemes, with the budget.
        head: the result of training the head alone, from which gains are counted.
        parts: results by which the contributions were measured.
        contributions: of all parts that fit the budget.
        choice: the scheme found.
        trained: that scheme and the controls.
        scores: of the same parts by proxies.
        proxy: the one whose scores stand for contributions; none where these were measured.
    """

    costs: SchemeCosts
    head: Measured
    parts: Mapping[StaticScheme, Measured]
    contributions: Contributions
    choice: Choice
    trained: Sequence[Trained] = field(default=())
    scores: Scores = field(default_factory=dict)
    proxy: str | None = None

    @property
    def worth(self) -> str:
        """What the scheme found is predicted to be worth."""
        if self.proxy:
            return f"{self.choice.predicted:.1f} % of the network's {self.proxy}"
        return f"predicted {self.choice.predicted:+.2f} points over the head alone"

    @property
    def proxy_correlations(self) -> dict[str, float | None]:
        """Spearman's, of each proxy's scores and the measured contributions of weights."""
        gains = self.contributions.weights
        return {
            name: _spearman([(scores[part], gain) for part, gain in gains.items()])
            for name, scores in self.scores.items()
            if self.proxy is None
        }

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of predicted and measured gains."""
        pairs = [
            (each.predicted, each.gain)
            for each in self.trained
            if each.predicted is not None and each.gain is not None
        ]
        return _spearman(pairs)


def _spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The rank correlation; none of fewer than three pairs, or of equal values."""
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(pairs).statistic)


def search(
    costs: SchemeCosts,
    measure: Measure,
    method: str = "contributions",
    shares: Sequence[float] = SHARES,
    controls: int = 0,
    train: bool = True,
    score: Score = lambda head, parts: {},
) -> Search:
    """Searches the scheme of the largest total contribution within the budget.

    Args:
        costs: of the network's schemes.
        measure: trains schemes.
        method: "contributions" chooses by integer programming, "evolution" by evolutionary search; "proxies"
            trains the head alone, and chooses by scores in place of contributions, by integer programming.
        shares: of a conv's neurons that may train.
        controls: how many random schemes are trained; with one or more, published ones that fit as well.
        train: whether the scheme found is trained; under "proxies" it never is.
        score: scores parts by proxies; "proxies" chooses by those of the run's criterion of importance.

    Raises:
        UserError: a budget below the head's cost, or the head alone diverged.
    """
    seed = costs.config.manual_seed
    weights = weights_within(costs, shares)
    proxy = costs.config.NEq_config.importance if method == "proxies" else None
    biases = [] if proxy else biases_within(costs)
    head, parts, contributions = measured_contributions(measure, [] if proxy else weights, biases)
    scores = score(head, weights)
    if proxy:
        contributions = replace(contributions, weights=scores[proxy])
    problems = [costs.problem(contributions, count) for count in contributions.biases]
    solve: Solve = (
        partial(by_evolution, seed=seed_for(seed, "evolution")) if method == "evolution" else by_milp
    )
    choice = best_choice(problems, costs.limit, costs.used, solve)
    named = {"found": choice.scheme} if train and not proxy else {}
    if controls:
        named |= published(costs)
        stream = np.random.default_rng(seed_for(seed, "controls"))
        named |= {
            f"random {number}": random_scheme(costs, weights, biases, stream) for number in range(controls)
        }
    results = measure("controls", list(dict.fromkeys(named.values()))) if named else {}
    trained = [
        Trained(
            name,
            scheme,
            costs.used(scheme),
            contributions.predicted(scheme),
            results[scheme].gain(head) if scheme in results else None,
            results.get(scheme),
        )
        for name, scheme in named.items()
    ]
    return Search(costs, head, parts, contributions, choice, trained, scores, proxy)


def weights_within(costs: SchemeCosts, shares: Sequence[float]) -> list[Part]:
    """The shares of convs that fit the budget by themselves.

    Of shares that round to the same number of neurons the smallest stays.
    """
    weights, limit = [], costs.limit
    for conv, layer in enumerate(costs.convs):
        by_count = {round(share * layer.neurons): share for share in sorted(shares, reverse=True)}
        for count, share in sorted(by_count.items()):
            option = costs.option(conv, share)
            if count and costs.base(0) + option.cost + option.depth <= limit:
                weights.append((conv, share))
    return weights


def biases_within(costs: SchemeCosts) -> list[int]:
    """The numbers of biases that fit the budget by themselves."""
    counts = sorted({round(share * len(costs.convs)) for share in BIASES} - {0})
    return [count for count in counts if costs.base(count) <= costs.limit]


def measured_contributions(
    measure: Measure, weights: Sequence[Part], biases: Sequence[int]
) -> tuple[Measured, Mapping[StaticScheme, Measured], Contributions]:
    """The contributions of parts by short runs: the head's result, those of all runs, and the gains.

    Raises:
        UserError: the head alone diverged.
    """
    of_weights = {(conv, share): StaticScheme((conv,), (share,)) for conv, share in weights}
    of_biases = {count: StaticScheme(HEAD.indices, HEAD.ratios, count) for count in biases}
    asked = [HEAD, *of_weights.values(), *of_biases.values()]
    results = measure("contributions" if len(asked) > 1 else "head", asked)
    if HEAD not in results:
        raise UserError("training the head alone diverged, to which all is compared; give a lower --base_lr")
    head = results[HEAD]
    gains = Contributions(
        {part: results[each].gain(head) for part, each in of_weights.items() if each in results},
        {0: 0.0} | {count: results[each].gain(head) for count, each in of_biases.items() if each in results},
    )
    return head, results, gains


def random_scheme(
    costs: SchemeCosts,
    weights: Sequence[Part],
    biases: Sequence[int],
    stream: np.random.Generator,
) -> StaticScheme:
    """A random scheme that fills the budget: parts in random order, each where it still fits."""
    count = int(stream.choice([0, *biases]))
    problem = costs.problem(Contributions(dict.fromkeys(weights, 0.0), {count: 0.0}), count)
    chosen: list[Option] = []
    for at in stream.permutation(len(problem.options)):
        option = problem.options[at]
        is_new = all(option.conv != other.conv for other in chosen)
        if is_new and problem.cost([*chosen, option]) <= costs.limit:
            chosen.append(option)
    while chosen and costs.used(problem.scheme(chosen)) > costs.limit:
        chosen.pop()
    return problem.scheme(chosen)


def published(costs: SchemeCosts) -> dict[str, StaticScheme]:
    """The shipped schemes of the network itself that fit the budget, by name."""
    net_name = costs.config.net_config.net_name
    found = {
        name: StaticScheme(entry.manual_weight_idx, entry.weight_update_ratio, entry.n_bias_update)
        for name, entry in schemes().items()
        if entry.manual_weight_idx and at_home(entry, net_name)
    }
    return {name: scheme for name, scheme in found.items() if costs.used(scheme) <= costs.limit}
