"""The wording of errors."""

import pytest

from neq.config.keys import KEYS
from neq.utils.errors import MOST_LISTED, UserError, first_line, shown, unknown_name


def test_unknown_name_names_the_nearest_and_lists_all() -> None:
    error = unknown_name("net_name", "mbv3", ["resnet18", "mbv2"], "See neq networks.")
    assert isinstance(error, UserError)
    assert str(error) == (
        "net_name 'mbv3' is unknown; did you mean 'mbv2'? Allowed: mbv2, resnet18. See neq networks."
    )


def test_unknown_name_without_a_near_one() -> None:
    assert str(unknown_name("scheme", "zzz", ["abc"])) == "scheme 'zzz' is unknown. Allowed: abc."


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("--lr", "--base_lr"), ("--epochs", "--n_epochs"), ("--batch_size", "--base_batch_size"),
        ("--n-epochs", "--n_epochs"), ("--ema", "--ema_decay"), ("--data_dir", None), ("--x", None),
    ],
)  # fmt: skip
def test_a_flag_that_is_not_similar_is_not_suggested(given: str, near: str | None) -> None:
    error = str(unknown_name("flag", given, [f"--{name}" for name in KEYS], "See --help."))
    assert error == f"flag '{given}' is unknown{f'; did you mean {near!r}?' if near else '.'} See --help."


def test_a_long_list_is_left_out_only_where_a_hint_replaces_it() -> None:
    names = [f"name{i}" for i in range(MOST_LISTED + 1)]
    assert "Allowed" not in str(unknown_name("key", "nam1", names, "See --help."))
    assert "Allowed" in str(unknown_name("key", "nam1", names))


def test_shown_is_short_and_one_line() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 10_000)) <= 100
    assert len(shown([["x" * 500] * 50] * 50)) < 5000


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such layer"), "no such layer"),
        (RuntimeError("first\nsecond"), "first"),
        (RuntimeError("\n \r\n\t the size differs \r\n\n second\n"), "the size differs"),
        (MemoryError(), "MemoryError"),
        (KeyboardInterrupt(" \n\n"), "KeyboardInterrupt"),
    ],
)
def test_first_line_is_what_an_error_says_or_its_type(error: BaseException, line: str) -> None:
    assert first_line(error) == line
