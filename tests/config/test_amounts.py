"""Budgets as people write them."""

from typing import Any

import pytest

from neq.config.resolve import resolve
from neq.utils.errors import UserError


def settled(file: dict[str, Any], flags: dict[str, Any]) -> tuple[float | None, int | None, str]:
    chosen = resolve({"NEq_config": file}, flags).config.NEq_config
    return chosen.ratio, chosen.budget, chosen.budget_unit


@pytest.mark.parametrize(
    ("written", "ratio", "budget", "unit"),
    [
        ("192311", None, 192311, "parameters"),
        ("1.5M", None, 1_500_000, "parameters"),
        ("1.005M", None, 1_005_000, "parameters"),
        ("8.001M", None, 8_001_000, "parameters"),
        ("20k", None, 20_000, "parameters"),
        ("30%", 0.3, None, "parameters"),
        (" 8.8 % ", 0.088, None, "parameters"),
        ("64MiB", None, 64 * 2**20, "bytes"),
        ("64 MB", None, 64 * 10**6, "bytes"),
        ("1.5GiB", None, 3 * 2**29, "bytes"),
        ("512B", None, 512, "bytes"),
        (".5kB", None, 500, "bytes"),
        ("30ms", None, 30_000_000, "time"),
        ("1.5 ms", None, 1_500_000, "time"),
        (".25ms", None, 250_000, "time"),
        ("20%time", 0.2, None, "time"),
        ("20 %time", 0.2, None, "time"),
        ("20%macs", 0.2, None, "macs"),
        ("20MMACs", None, 20_000_000, "macs"),
        ("1.5 GMACs ", None, 1_500_000_000, "macs"),
        ("750000MACs", None, 750_000, "macs"),
    ],
)
def test_numbers_shares_and_sizes(written: str, ratio: float | None, budget: int | None, unit: str) -> None:
    assert settled({}, {"budget": written}) == (pytest.approx(ratio) if ratio else None, budget, unit)
    assert settled({"budget": written}, {}) == (pytest.approx(ratio) if ratio else None, budget, unit)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "MiB",
        "64 apples",
        "1.5",
        "-3",
        "1e6",
        "30 % of all",
        "64Mib",
        "0.1k5",
        "30 s",
        "30MS",
        "20%times",
        "20time",
        "MACs",
        "1MMAC",
    ],
)
def test_what_cannot_be_read_is_refused(written: str) -> None:
    with pytest.raises(UserError, match=r"budget .* is not allowed"):
        settled({}, {"budget": written})


def test_a_unit_goes_with_numbers_and_shares() -> None:
    assert settled({}, {"budget": "30%", "budget_unit": "macs"}) == (0.3, None, "macs")
    assert settled({}, {"budget": "5M", "budget_unit": "macs"}) == (None, 5_000_000, "macs")
    assert settled({"ratio": 0.3}, {"budget_unit": "bytes"}) == (0.3, None, "bytes")
    assert settled({"ratio": 0.3, "budget_unit": "macs"}, {"budget": "1MiB"}) == (None, 2**20, "bytes")
    assert settled({"budget": "1MiB"}, {"ratio": 0.2}) == (0.2, None, "bytes")
    assert settled({"budget": "1MiB"}, {"budget": "20%time"}) == (0.2, None, "time")
    assert settled({"budget": "20%time"}, {"budget": "30%"}) == (0.3, None, "time")
    assert settled({"budget": "30ms"}, {"budget": "30ms"}) == (None, 30_000_000, "time")


@pytest.mark.parametrize("given", [{"budget": "9" * 400 + "M"}, {"budget": 10**19}, {"ratio": 1e308}])
def test_what_no_network_has_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is not allowed"):
        settled({}, given)


def test_contradictions_are_refused() -> None:
    with pytest.raises(UserError, match=r"budget 64MiB is a size, but budget_unit is 'macs'"):
        settled({}, {"budget": "64MiB", "budget_unit": "macs"})
    with pytest.raises(UserError, match=r"budget 30ms is a time, but budget_unit is 'bytes'"):
        settled({}, {"budget": "30ms", "budget_unit": "bytes"})
    with pytest.raises(UserError, match=r"budget 20%time is a share of time, but budget_unit is 'macs'"):
        settled({}, {"budget": "20%time", "budget_unit": "macs"})
    with pytest.raises(UserError, match=r"budget 20MMACs is of MACs, but budget_unit is 'bytes'"):
        settled({}, {"budget": "20MMACs", "budget_unit": "bytes"})
    with pytest.raises(UserError, match=r"ratio 0\.2 and budget 30% are both given"):
        settled({}, {"budget": "30%", "ratio": 0.2})
    with pytest.raises(UserError, match=r"mbv2_scheme_1.* in parameters, budget_unit is 'bytes'"):
        settled({}, {"net_name": "mbv2", "scheme": "mbv2_scheme_1", "budget_unit": "bytes"})


def test_a_scheme_counts_in_parameters() -> None:
    file = {"budget_unit": "bytes", "ratio": 0.5}
    assert settled(file, {"net_name": "mbv2", "scheme": "mbv2_scheme_1"}) == (
        0.0878233231,
        None,
        "parameters",
    )
    own = {"net_name": "mbv2", "scheme": "mbv2_scheme_1", "budget": "64MiB"}
    resolved = resolve({}, own).config
    assert resolved.NEq_config.budget_unit == "bytes"
    assert resolved.NEq_config.scheme is None
    assert resolved.backward_config.manual_weight_idx
