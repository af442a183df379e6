import math
from collections.abc import Callable

import pytest

from neq.config import resolve
from neq.planning.configurations import Configuration, Learning, NormRule, Space, space_of
from neq.planning.rules import Estimate, Limits, Row, check_any, choose, judge
from neq.utils.errors import UserError

MIB = 2**20
FROZEN = NormRule("frozen")


def space(**settings: object) -> Space:
    chosen = {"batch_size": 16, "shares": (1.0, 0.5), "saved_precisions": ("exact",), "segments": (1, 2)}
    return Space(**{**chosen, "memories": ("fast",), **settings})  # type: ignore[arg-type]


def everything(of: Space) -> list[Configuration]:
    return [each for learning in of.learnings for each in of.configurations(learning)]


def toy(each: Configuration) -> Estimate:
    """Memory grows with neurons and images and falls with segments; time does the opposite."""
    share = each.learning.share or 1.0
    peak = share * each.micro_batch * 10 / each.segments
    seconds = 10 * share * (1 + 0.3 * (each.segments - 1)) * (1 + 1 / each.micro_batch)
    return Estimate(int(peak * MIB), seconds, ("cut",) * (each.segments - 1))


def key_of(row: Row) -> tuple[float | None, int, int]:
    """Share, micro-batch, segments."""
    each = row.configuration
    return each.learning.share, each.micro_batch, each.segments


def rules(
    limits: Limits, estimate: Callable[[Configuration], Estimate] = toy
) -> dict[tuple[float | None, int, int], str]:
    return {key_of(row): row.rule for row in judge(everything(space()), estimate, limits, 16)}


def test_the_rows_have_the_order_of_the_configurations() -> None:
    given = everything(space())
    assert [row.configuration for row in judge(given, toy, Limits(100 * MIB), 16)] == given


def test_r1_and_r4_memory() -> None:
    found = rules(Limits(25 * MIB))
    assert found[0.5, 4, 1] == ""  # 20 MiB
    assert found[0.5, 8, 1] == "R1"
    assert found[0.5, 16, 2] == "R1"
    # A share of .5 with 8 images is too large already.
    assert found[1.0, 8, 1] == "R4"
    assert found[1.0, 16, 2] == "R4"
    # A whole batch is estimated by itself, since no gradients add up during its forward pass.
    assert found[0.5, 16, 1] == "R1"


def test_what_r4_strikes_is_not_estimated() -> None:
    asked: list[Configuration] = []

    def counted(each: Configuration) -> Estimate:
        asked.append(each)
        return toy(each)

    rows = judge(everything(space()), counted, Limits(25 * MIB), 16)
    assert set(asked) == {row.configuration for row in rows if row.estimate is not None}
    assert len(asked) == sum(not row.rule.startswith("R4") for row in rows) < len(rows)


def test_more_segments_are_not_monotone() -> None:
    def odd(each: Configuration) -> Estimate:
        return Estimate(MIB * (1 if each.segments == 2 else 100), 1 / each.micro_batch)

    found = rules(Limits(50 * MIB), odd)
    assert found[0.5, 16, 2] == ""
    assert found[0.5, 16, 1] == "R1"


def test_r2_time() -> None:
    found = rules(Limits(10**6 * MIB, deadline=10.5))
    assert found[1.0, 16, 1] == "R2"
    assert found[0.5, 16, 1] == ""


def test_r3_only_within_what_learns_the_same() -> None:
    def estimate(each: Configuration) -> Estimate:
        # Fewer images at a time need no more of either; so would the smaller share.
        return Estimate(each.micro_batch * MIB, each.micro_batch)

    found = rules(Limits(10**6 * MIB), estimate)
    assert {key for key, rule in found.items() if not rule} == {(1.0, 1, 1), (0.5, 1, 1)}
    assert found[1.0, 16, 2] == "R3"


def test_of_equal_configurations_the_one_with_fewer_segments_stays() -> None:
    found = rules(Limits(10**6 * MIB), lambda each: Estimate(MIB, 1.0))
    assert sorted(key[2] for key, rule in found.items() if not rule) == [1, 1]


def test_no_survivor_is_replaced_by_another() -> None:
    rows = [row for row in judge(everything(space()), toy, Limits(90 * MIB), 16) if not row.rule]
    assert len(rows) > 4
    for one in rows:
        for other in rows:
            if one is not other and one.configuration.learning == other.configuration.learning:
                assert one.estimate is not None
                assert other.estimate is not None
                better = one.estimate.peak <= other.estimate.peak
                assert not (better and one.estimate.seconds <= other.estimate.seconds)


def test_the_choice_prefers_what_learns_most_then_the_fastest() -> None:
    rows = judge(everything(space()), toy, Limits(45 * MIB), 16)
    found = [key_of(row) for row in choose(rows, space())]
    assert found[0] == (1.0, 4, 1)
    assert next(key for key in found if key[0] == 0.5) == (0.5, 8, 1)
    assert [key[0] for key in found] == sorted((key[0] or 0 for key in found), reverse=True)


def test_a_limit_that_nothing_meets_names_the_least() -> None:
    given = everything(space())
    limits = Limits(1 * MIB)
    with pytest.raises(UserError, match=r"limit of 1.0 MiB is less than the 2.5 MiB that the smallest plan"):
        check_any(judge(given, toy, limits, 16), limits)
    limits = Limits(100 * MIB, 3)
    with pytest.raises(UserError, match=r"deadline of 3 s is less than the 5 s that the fastest plan"):
        check_any(judge(given, toy, limits, 16), limits)


@pytest.mark.parametrize(("memory", "deadline"), [(0, 1), (-5, 1), (MIB, 0), (MIB, -1), (MIB, math.nan)])
def test_limits_that_are_none(memory: int, deadline: float) -> None:
    with pytest.raises(UserError, match="is not allowed; give a"):
        Limits(memory, deadline)


def test_micro_batches_by_norm_rule() -> None:
    ghost, whole = NormRule("train", 4), NormRule("frontier")
    of = space(norm_rules=(FROZEN, ghost, whole), segments=(1,), shares=(None,))
    found = {
        learning.norm_rule: [each.micro_batch for each in of.configurations(learning)]
        for learning in of.learnings
    }
    assert found == {FROZEN: [16, 8, 4, 2, 1], ghost: [16, 8, 4], whole: [16]}


def test_a_whole_batch_is_admitted_whatever_the_groups() -> None:
    of = space(norm_rules=(NormRule("train", 12),), segments=(1,), shares=(None,))
    assert [each.micro_batch for each in everything(of)] == [16]
    with pytest.raises(UserError, match="no configuration is left"):
        check_any([], Limits(1))


def test_learnings_come_in_the_order_of_preference() -> None:
    of = space(norm_rules=(NormRule("train"), FROZEN), saved_precisions=("exact", "bf16"))
    assert list(of.learnings)[:3] == [
        Learning(1.0, NormRule("train"), "exact"),
        Learning(1.0, NormRule("train"), "bf16"),
        Learning(1.0, FROZEN, "exact"),
    ]


@pytest.mark.parametrize("memory", ["fast", "tight"])
def test_a_memory_setting_that_is_given_stays(memory: str) -> None:
    config = resolve({}, {"memory": memory}).config
    assert space_of(config, {"memory"}, 8, can_give_back=True).memories == (memory,)
    assert space_of(config, (), 8, can_give_back=True).memories == ("fast", "tight")
