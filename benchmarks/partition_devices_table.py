"""The tables of the benchmark of two devices, in Markdown, from nothing but recorded results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.transfer_table import markdown

NOTHING = "-"


def tables(found: Mapping[str, Any]) -> str:
    """How far the table adds up, and latencies, measured and predicted."""
    clock = "the processor's time" if found["clock"] == "cpu" else "the time that passed"
    first, last = found["load"]
    machine, link = found["machine"], found["link"]
    first_of_all = found["scheduling"] != "other"
    note = (
        f"{machine['cpu']}, torch {machine['torch']}, one thread a device, {found['image_size']} px, batch "
        f"norms folded; load average {first:.1f} before and {last:.1f} after"
        f"{', the devices scheduled before all else' * first_of_all}. Sums: medians of {clock}. Latencies: "
        "medians of the time that passed, over images in which neither device's processor did anything else "
        f"while it computed (calm). Link: loopback, alpha {link['alpha_ms']:.2f} ms, "
        f"beta {link['bytes_per_ms'] / 1e6:.2f} GB/s."
    )
    sums = markdown(
        ["network", "whole ms", "sum of parts ms", "sum / whole"],
        [
            [
                each["network"],
                _ms(each["whole_ms"]),
                _ms(each["parts_ms"]),
                _ratio(each, "parts_ms", "whole_ms"),
            ]
            for each in found["sums"]
        ],
    )
    heads = ["network", "two devices ms", "one process ms", "base ms", "two / one", "two / base"]
    heads += ["predicted ms", "predicted / measured", "waiting ms", "bit-equal", "calm images"]
    return "\n".join([*sums, "", *markdown(heads, map(_pair, found["pairs"])), "", note])


def _pair(pair: Mapping[str, Any]) -> list[str]:
    two = pair["two_devices"]
    total = None if two is None else two["devices"][0]["total"]
    values = {**pair, "two_ms": total}
    waiting = [] if two is None else [sum(device["waiting"]) for device in two["devices"]]
    return [
        pair["network"],
        _ms(total),
        _ms(pair["one_process_ms"]),
        _ms(pair["base_ms"]),
        _ratio(values, "two_ms", "one_process_ms"),
        _ratio(values, "two_ms", "base_ms"),
        _ms(pair["predicted_ms"]),
        _ratio(values, "predicted_ms", "two_ms"),
        ", ".join(map(_ms, waiting)) or NOTHING,
        "yes" if pair["bit_equal"] else "no",
        f"{pair['calm_images']} of {pair['images']}",
    ]


def _ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _ratio(values: Mapping[str, Any], above: str, below: str) -> str:
    if values[above] is None or values[below] is None:
        return NOTHING
    return f"{values[above] / values[below]:.2f}"
