"""`neq partition run`: a branched network on two devices, this one's branch here."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from neq.cli.parsing import Parser, check_new_file, count
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError
from neq.utils.exit_codes import Ended
from neq.utils.launch_env import quiet_connections

if TYPE_CHECKING:
    from neq.partition.deploy import Manifest
    from neq.partition.run import Leader, MeasuredLatency
    from neq.utils.console import Console

ADDRESS = "127.0.0.1:29600"
TIMEOUT = 30.0
REPEATS = 30  # of an image of noise


def command(arguments: list[str]) -> int:
    """Runs one of two devices; returns the exit code.

    Args:
        arguments: "run", then a network and options.
    """
    options = _parser().parse_args(arguments[1:])
    _check(options)
    quiet_connections()
    import torch

    from neq.partition.cpu_share import quota, sleeping
    from neq.partition.exchange import open_peer
    from neq.partition.meeting import PeerLost, parse_address
    from neq.partition.opening import open_part
    from neq.partition.run import Leader, follow, hello
    from neq.results.prediction import image_files
    from neq.utils.console import Console

    address = parse_address(options.address)
    files = image_files(path.expanduser() for path in options.images)
    manifest, part = open_part(options.network, options.rank)
    torch.set_num_threads(options.threads)
    by_quota = options.slow_by == "quota"
    slow, size, console = None, manifest.images.size, Console(highlight=False)
    if not by_quota:
        slow = sleeping(options.cpu_share)
    try:
        with (
            quota(options.cpu_share if by_quota else 1.0),
            open_peer(address, options.rank, hello(manifest), options.timeout) as peer,
        ):
            if options.rank == 1:
                found, code = follow(part, peer, size, slow), 0
            else:
                leader = Leader(part, peer, size, slow)
                leader.warm_up()
                code = _lead(options, manifest, leader, files, console)
                found = leader.finish()
    except PeerLost as error:
        raise Ended(1, str(error)) from error
    if found is not None:
        console.print(_table(found, manifest))
        _warn_busy(found, options, console)
        if options.latency is not None:
            write_text(options.latency, json.dumps(_described(found, options, manifest), indent=1) + "\n")
    return code


def _check(options: argparse.Namespace) -> None:
    """Refuses what does not fit together, before torch is imported."""
    if options.rank == 1 and (options.images or options.output is not None or options.repeats is not None):
        raise UserError(
            "--images, --repeats and --output are those of device 0; leave them out with --rank 1"
        )
    if options.output is not None:
        if not options.images:
            raise UserError("--output is the table of --images; give images")
        if options.output.suffix != ".csv":
            raise UserError(f"--output {options.output} is not a name for a table; let it end in .csv")
        check_new_file("--output", options.output, options.force)
    if options.latency is not None:
        if options.latency.suffix != ".json":
            raise UserError(f"--latency {options.latency} is not allowed: a name that ends in .json")
        check_new_file("--latency", options.latency, options.force)


def _lead(
    options: argparse.Namespace, manifest: Manifest, leader: Leader, files: list[str], console: Console
) -> int:
    """Runs the images of device 0 and prints their classes; the exit code, 1 where one cannot be read."""
    import torch

    if not files:
        image = torch.randn(1, 3, manifest.images.size, manifest.images.size)
        for _ in range(options.repeats or REPEATS):
            leader.run(image)
        return 0
    from neq.partition.opening import predictions
    from neq.results.frame import write_csv
    from neq.results.prediction import table

    found = []
    for prediction in predictions(files, manifest, leader, options.top, options.repeats or 1):
        console.lines(str(prediction), style="yellow" if prediction.error else None)
        found.append(prediction)
    if options.output is not None:
        write_csv(table(found), options.output)
    return int(any(each.error for each in found))


def _table(found: MeasuredLatency, manifest: Manifest) -> object:
    from neq.partition.run import parts
    from neq.utils.console import figures_table

    title = f"{manifest.model.name}, ms, medians of {found.images} images"
    table = figures_table("", ("device 0", "device 1"), title)
    for name, both in parts(found):
        table.add_row(name, *(f"{each:,.2f}" for each in both))
    table.add_row("image sent (apart)", f"{found.input:,.2f}", "")
    return table


def _warn_busy(found: MeasuredLatency, options: argparse.Namespace, console: Console) -> None:
    """Warns where the latency is not that of idle devices."""
    from neq.partition.profiling import MOST_APART

    busy = found.devices[options.rank].busy
    by_quota = options.cpu_share < 1 and options.slow_by == "quota"
    if busy > MOST_APART and options.threads == 1 and not by_quota:
        console.warn(
            f"the processor did something else {busy:.0%} of the time that this device computed: on an idle "
            "one the latency is shorter"
        )


def _described(found: MeasuredLatency, options: argparse.Namespace, manifest: Manifest) -> dict[str, object]:
    import torch

    from neq.runs.environment import current_environment

    load = None
    with contextlib.suppress(OSError):
        load = os.getloadavg()[0]
    return {
        "model": manifest.model.name,
        "manifest": manifest.digest,
        "image_size": manifest.images.size,
        "rank": options.rank,
        "cpu_share": options.cpu_share,
        "slow_by": options.slow_by if options.cpu_share < 1 else None,
        "load": load,
        "environment": current_environment(torch.device("cpu")).to_json(),
        **found.to_json(),
    }


def limit(text: str) -> float:
    return _number(text, 0.1, 600, "seconds from .1 to 600 are expected")


def fraction(text: str) -> float:
    return _number(text, 0.01, 1, "a share of a processor from .01 to 1 is expected")


def _number(text: str, least: float, most: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {expected}")
    return value


def _file(text: str) -> Path:
    return Path(text).expanduser()


def _parser() -> Parser:
    parser = Parser(
        prog="neq partition run",
        description="Run a branched network on two devices: this command with --rank 0 on one, with --rank 1 "
        "on the other (or both on one machine). Each loads its own file. Device 0 has the images and prints "
        "their classes; without images, one of noise is run. Both print the latency, with waiting apart. "
        "Connections are neither encrypted nor authenticated: use a network that you trust.",
    )
    add = parser.add_argument
    add("network", metavar="DIR|MODEL",
        help="folder of neq partition split; or a name or .json file, with random weights")  # fmt: skip
    add("--rank", type=int, choices=(0, 1), required=True, help="which device this is")
    add("--address", default=ADDRESS, metavar="HOST:PORT",
        help=f"of device 0, as device 1 reaches it (default: {ADDRESS})")  # fmt: skip
    add("--images", type=Path, nargs="+", default=[], metavar="IMAGE|FOLDER", help="of device 0: photos")
    add("--repeats", type=count, metavar="N",
        help=f"runs of each image (default: 1; of noise {REPEATS})")  # fmt: skip
    add("--top", type=count, default=5, metavar="N", help="classes of each image (default: 5)")
    add("--output", type=_file, metavar="FILE", help="a .csv file: image, rank, class, probability")
    add("--latency", type=_file, metavar="FILE", help="a .json file: the latency of both devices")
    add("--force", action="store_true", help="replace files that are there")
    add("--timeout", type=limit, default=TIMEOUT, metavar="S",
        help=f"seconds to wait for the other device, each time (default: {TIMEOUT:g})")  # fmt: skip
    add("--threads", type=count, default=1, metavar="N", help="of this device (default: 1)")
    add("--cpu-share", type=fraction, default=1.0, metavar="SHARE",
        help="emulate a slower device: a share of one processor")  # fmt: skip
    add("--slow-by", choices=("quota", "sleep"), default="quota",
        help="how: by the kernel's quota, or by sleeping after each part (default: quota)")  # fmt: skip
    return parser
