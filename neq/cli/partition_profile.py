"""`neq partition profile`: the times of this device's blocks, and of the link to another one."""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neq.cli.parsing import Parser, check_new_file, count
from neq.cli.partition_run import TIMEOUT, fraction, limit
from neq.partition.device_profile import DeviceProfile
from neq.utils.errors import UserError
from neq.utils.exit_codes import Ended
from neq.utils.launch_env import quiet_connections

if TYPE_CHECKING:
    from neq.partition.device_profile import LinkProfile
    from neq.utils.console import Console

LINK_REPEATS = 30


def command(arguments: list[str]) -> int:
    """Measures this device and writes its profile; returns the exit code.

    Args:
        arguments: "profile", then options.
    """
    options = _parser().parse_args(arguments[1:])
    _check(options)
    output: Path = options.output
    before = DeviceProfile.read(output) if options.only_link else None
    quiet_connections()
    import torch

    from neq.utils.console import Console

    console = Console(highlight=False)
    torch.set_num_threads(options.threads)
    link = None if options.link is None else _link(options)
    if link is not None:
        console.lines(
            f"link to {link.peer}: {link.alpha_ms:.3f} ms and {link.bytes_per_ms / 1e6:.3f} GB/s, both ways"
        )
        for size, ms in link.measured:
            console.lines(f"  {size:>9,d} bytes {ms:8.3f} ms, by the fit {link.transfer_ms(size):8.3f}")
    if options.rank == 1:
        return 0
    if before is not None:
        found = replace(before, link=link)
    else:
        found = replace(_measured(options, console), link=link)
    found.write(output)
    console.lines(f"{output}: profile of {found.name}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses what does not fit together, before torch is imported."""
    if options.rank is not None and not options.link:
        raise UserError("--rank is of a link to another device; give --link HOST:PORT")
    if options.allow_busy and options.threads > 1:
        raise UserError("--allow-busy counts the processor's time of one thread; leave --threads out")
    if options.only_link and options.link is None:
        raise UserError("--only-link replaces the link of a profile; give --link")
    if options.rank == 1:
        return
    if options.output is None:
        raise UserError("--output is missing; give the .json file of the profile")
    if options.output.suffix != ".json":
        raise UserError(f"--output {options.output} is not allowed: a name that ends in .json")
    check_new_file("--output", options.output, options.force or options.only_link)


def _link(options: argparse.Namespace) -> LinkProfile:
    from neq.partition.link_profiling import measure_link, measure_loopback
    from neq.partition.meeting import PeerLost, parse_address

    try:
        if not options.link:
            return measure_loopback(options.timeout, LINK_REPEATS)
        return measure_link(
            parse_address(options.link, "--link"), options.rank or 0, options.timeout, LINK_REPEATS
        )
    except PeerLost as error:
        raise Ended(1, f"the link: {error}") from error


def _measured(options: argparse.Namespace, console: Console) -> DeviceProfile:
    import torch

    from neq.cli.partition_show import named_model
    from neq.partition.model import SIDES
    from neq.partition.profiling import profile_device, scaled
    from neq.partition.published import PUBLISHED
    from neq.runs.environment import current_environment

    models = [named_model(name) for name in options.models or PUBLISHED]
    size = options.image_size or models[0].image_size
    if not 8 <= size <= SIDES:
        raise UserError(f"--image-size {size} is not allowed: 8 to {SIDES} pixels")
    models = [model.at(size) for model in models]
    name = options.device_name or socket.gethostname()
    load = os.getloadavg()[0]
    found = profile_device(models, name, options.classes, options.repeats, options.allow_busy)
    environment = {**current_environment(torch.device("cpu")).to_json(), "load": load}
    found = scaled(replace(found, environment=environment), options.cpu_share)
    _print(found, options, console)
    return found


def _print(found: DeviceProfile, options: argparse.Namespace, console: Console) -> None:
    from neq.utils.console import figures_table

    measured = "processor time" if found.clock == "cpu" else "time that passed"
    points = sum(len(times.widths) + (times.plain_ms is not None) for times in found.blocks)
    console.lines(
        f"{found.name}: {len(found.blocks)} shapes of blocks at {points} widths, {found.image_size} px, "
        f"{options.threads} thread{'s' * (options.threads > 1)}, batch norms folded; medians of {measured}"
    )
    if found.clock == "cpu":
        console.warn(f"the device was busy: the processor did something else {found.busy:.0%} of the time")
    if options.cpu_share < 1:
        console.note(f"emulated: all times are divided by a share of {options.cpu_share:g}")
    table = figures_table("network", ("whole ms", "parts ms", "parts / whole"))
    for each in found.networks:
        ratio = each.parts_ms / each.whole_ms
        table.add_row(each.name, f"{each.whole_ms:,.2f}", f"{each.parts_ms:,.2f}", f"{ratio:.3f}")
    console.print(table)


def _parser() -> Parser:
    parser = Parser(
        prog="neq partition profile",
        description="Measure this device: the blocks of networks at a few widths, in turns with the whole "
        "networks, and with --link the connection to another device. It refuses on a busy device. The "
        "latency model and the search of branched networks read the profile.",
    )
    add = parser.add_argument
    add(
        "--output",
        type=lambda text: Path(text).expanduser(),
        metavar="FILE",
        help="the profile, a .json file",
    )
    add("--models", nargs="+", default=[], metavar="MODEL",
        help="names of networks and .json files (default: the six published ones)")  # fmt: skip
    add("--device-name", metavar="NAME", help="in the profile (default: the name of this host)")
    add("--image-size", type=count, metavar="N", help="pixels a side (default: the first model's)")
    add("--classes", type=count, default=1000, metavar="N", help="of the classifiers (default: 1000)")
    add("--repeats", type=count, default=15, metavar="N", help="samples of each part (default: 15)")
    add("--threads", type=count, default=1, metavar="N", help="of torch (default: 1)")
    add("--allow-busy", action="store_true",
        help="measure a busy device by its processor's time; the profile says so")  # fmt: skip
    add("--cpu-share", type=fraction, default=1.0, metavar="SHARE",
        help="of an emulated slower device: times are divided by it")  # fmt: skip
    add("--link", nargs="?", const="", metavar="HOST:PORT",
        help="measure the link too: to the device of --rank 1, at this address of device 0; without an "
        "address between two processes here")  # fmt: skip
    add("--rank", type=int, choices=(0, 1),
        help="of a link: 0 writes the profile (default), 1 only answers")  # fmt: skip
    add(
        "--only-link",
        action="store_true",
        help="replace the link of the profile FILE, nothing else",
    )
    add("--timeout", type=limit, default=TIMEOUT, metavar="S",
        help=f"seconds to wait for the other device, each time (default: {TIMEOUT:g})")  # fmt: skip
    add("--force", action="store_true", help="replace FILE")
    return parser
