"""Two devices against one: how far a table of blocks adds up, and latencies, measured and predicted.

OMP_NUM_THREADS=1 python -m benchmarks.partition_devices --output benchmarks/partition_devices.json

On a machine that others use too, `chrt -f 10` before it schedules the devices before all else, as root.
Both devices are processes of this machine, over loopback. Images of two devices, and of one process that runs
the same network and the plain one, take turns. Only samples count in which the processor did nothing else; of
other figures the load is recorded beside them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.common import at_least, check_output, machine, run_benchmark
from benchmarks.partition_devices_table import tables
from neq.config import MeanStd
from neq.partition import Model, published
from neq.partition.deploy import Images, load_part, split, write_split
from neq.partition.exchange import open_peer
from neq.partition.folding import folded
from neq.partition.latency import latency
from neq.partition.link_profiling import measure_loopback
from neq.partition.meeting import listening
from neq.partition.networks import BranchedNetwork
from neq.partition.profiling import Part, profile_device
from neq.partition.published import BASES, PUBLISHED
from neq.partition.run import Leader, follow, hello
from neq.utils.atomic_files import write_text

CLASSES = 1000
TIMEOUT = 120.0
LINK_REPEATS = 50


def main(argv: list[str] | None = None) -> int:
    """Measures and writes the figures, or prints their tables; returns the exit code."""
    return run_benchmark(_measure, argv)


def _measure(argv: list[str]) -> None:
    options = _parser().parse_args(argv)
    path: Path = options.output
    if options.table:
        print(tables(json.loads(path.read_text())))
        return
    check_output(path)
    torch.set_num_threads(1)
    start = os.getloadavg()[0]
    models = [published(name).at(options.image_size) for name in PUBLISHED]
    profile = profile_device(models, "this machine", CLASSES, options.repeats, options.allow_busy)
    link = measure_loopback(TIMEOUT, LINK_REPEATS)
    found: dict[str, Any] = {
        "machine": machine(torch.device("cpu")),
        "image_size": options.image_size,
        "scheduling": "first in, first out" if os.sched_getscheduler(0) == os.SCHED_FIFO else "other",
        "clock": profile.clock,
        "busy": profile.busy,
        "link": {"alpha_ms": link.alpha_ms, "bytes_per_ms": link.bytes_per_ms, "measured": link.measured},
        "sums": [
            {"network": name, "whole_ms": each.whole_ms, "parts_ms": each.parts_ms}
            for name, each in zip(PUBLISHED, profile.networks, strict=True)
        ],
        "pairs": [],
    }
    pairs = ((name, base) for base in BASES for name in PUBLISHED if name != base and base in name)
    for name, base in pairs:
        model, plain = (published(each).at(options.image_size) for each in (name, base))
        predicted = latency(model, [profile, profile], link, CLASSES).total
        measured = _pair(model, plain, options.images, path.parent / f".{path.stem}-split")
        found["pairs"].append({"network": name, "base": base, "predicted_ms": predicted, **measured})
    found["load"] = [start, os.getloadavg()[0]]
    write_text(path, json.dumps(found, indent=1) + "\n")
    print(tables(found))


def _pair(model: Model, plain: Model, images: int, folder: Path) -> dict[str, Any]:
    """Milliseconds of a network on two devices, in one process, and of the plain one, in turns."""
    torch.manual_seed(0)
    network = BranchedNetwork(model, CLASSES).eval()
    size, zeros = model.image_size, (0.0, 0.0, 0.0)
    given = Images(size, MeanStd(mean=zeros, std=(1.0, 1.0, 1.0)), "none")
    write_split(folder, *split(network, [str(number) for number in range(CLASSES)], given))
    server = listening("127.0.0.1", 0)
    address = ("127.0.0.1", server.getsockname()[1])
    other = multiprocessing.get_context("spawn").Process(target=_follow, args=(folder, address), daemon=True)
    other.start()
    image = torch.randn(1, 3, size, size).contiguous(memory_format=torch.channels_last)
    try:
        manifest, part = load_part(folder, 0)
        alone = [
            Part(each.model.name, _deployed(each), image)
            for each in (network, BranchedNetwork(plain, CLASSES))
        ]
        with open_peer(address, 0, hello(manifest), TIMEOUT, server) as peer, torch.no_grad():
            leader = Leader(part, peer, size)
            leader.warm_up(5)
            expected = alone[0].run(image)
            same = isinstance(expected, torch.Tensor) and torch.equal(leader.run(image), expected)
            for _ in range(images):
                leader.run(image)
                for each in alone:
                    each.sample(allow_busy=False)
            two, count = leader.finish_calm()
    finally:
        other.join(5)
        other.kill()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    whole, base = (1e3 * median(each.walls) if each.walls else None for each in alone)
    return {
        "bit_equal": same,
        "images": count,
        "calm_images": 0 if two is None else two.images,
        "calm_samples": [len(each.walls) for each in alone],
        "two_devices": None if two is None else two.to_json(),
        "one_process_ms": whole,
        "base_ms": base,
    }


def _follow(folder: Path, address: tuple[str, int]) -> None:
    """Device 1."""
    torch.set_num_threads(1)
    manifest, part = load_part(folder, 1)
    with open_peer(address, 1, hello(manifest), TIMEOUT) as peer:
        follow(part, peer, manifest.images.size)


def _deployed(network: nn.Module) -> nn.Module:
    return folded(network).requires_grad_(False).to(memory_format=torch.channels_last)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partition_devices", description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("benchmarks/partition_devices.json"), help="a .json file")
    add("--image-size", type=at_least(8), default=224, help="pixels a side (default: 224)")
    add("--repeats", type=at_least(1), default=15, help="samples of each part of the profile (default: 15)")
    add("--images", type=at_least(1), default=100, help="of each pair (default: 100)")
    add("--allow-busy", action="store_true", help="take the profile of the processor's time")
    add("--table", action="store_true", help="print the tables of the file that is there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
