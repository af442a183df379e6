import pytest

from neq.config.amounts import bytes_of, seconds_of


def test_sizes_and_times() -> None:
    assert [bytes_of(text) for text in ("256MiB", "1.5 GiB", "3kB")] == [2**28, 3 * 2**29, 3000]
    assert [seconds_of(text) for text in ("90s", "10min", ".5h")] == [90, 600, 1800]


@pytest.mark.parametrize("text", ["", "0s", "10", "-1s", "1d", "s", "1e3s", None, 5, True, ["1s"]])
def test_what_is_no_time(text: object) -> None:
    with pytest.raises(ValueError, match="is not allowed: a time is expected, as 90s, 10min or 2h"):
        seconds_of(text)


@pytest.mark.parametrize("text", ["0MiB", "256", "1TiB", None, 3])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is not allowed: a size is expected, as 256MiB or"):
        bytes_of(text)
