"""`neq train --plan auto|FILE`: a run under a plan, within a memory limit that is held.

A run whose memory exceeds the limit is ended, and the next plan is taken once. Planning and each run have a
process of their own, which takes the place of the one before: memory that a process has taken counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path
from typing import NoReturn

from neq.cli.next_process import go_on
from neq.cli.parsing import Parser
from neq.cli.plan import given_settings, planned_settings, run_options
from neq.config import Config, Options, resolve
from neq.planning.configurations import PLANNED
from neq.planning.device_plan import DevicePlan
from neq.planning.rules import Limits
from neq.runs import find_run
from neq.runs.identity import plain_identity
from neq.utils.errors import UserError
from neq.utils.exit_codes import Terminated
from neq.utils.launch_env import launch_rank
from neq.utils.malloc import give_back_at_once

RUNS = Path("runs")
PLANS = RUNS / "plans"


def command(arguments: list[str]) -> int:
    """Trains under a plan; returns the exit code.

    Args:
        arguments: "train", then flags, --plan among them.
    """
    if launch_rank().count > 1:
        raise UserError("--plan is for one process; start neq train alone")
    started = time.time()
    own, flags = _parser().parse_known_args(arguments[1:])
    run = run_options("neq train --plan", flags)
    if own.plan == "auto":
        if own.memory is None:
            raise UserError("--plan auto needs the limit that it is for; give --memory SIZE, as 256MiB")
        _replaced_by(_made(run, Limits(own.memory, own.deadline)), flags, started + own.deadline)
    if own.memory is not None or own.deadline != math.inf:
        raise UserError(f"--memory and --deadline are those of {own.plan}; give them with --plan auto")
    return _train(Path(own.plan), run, flags, own.until)


def _made(run: Options, limits: Limits) -> Path:
    """The file of the plan of a run; one that was made before stays, so that its run is resumed."""
    base, overrides = planned_settings(run)
    config = resolve(base, overrides).config
    given = [name for name in PLANNED if name in given_settings(run, base)]
    asked = [plain_identity(config), given, limits.memory, limits.deadline, config.device]
    path = PLANS / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:10]}.json"
    if path.exists():
        return path
    from neq.planning.planning import plan_run
    from neq.utils.console import Console

    console = Console()
    plan = plan_run(base, overrides, given, limits, console.note, RUNS)
    path.parent.mkdir(parents=True, exist_ok=True)
    plan.write(path)
    console.note(f"{path}: {len(plan.rows)} configurations, {len(plan.order)} of which fit")
    return path


def _train(path: Path, run: Options, flags: list[str], until: float | None) -> int:
    """Trains under a plan that is made.

    Args:
        until: when the time is over, in seconds since 1970; None: the plan's deadline counts from now on.
    """
    plan = DevicePlan.read(path)
    plan.check_hits()
    config = _planned(plan, path, run)
    if config.memory == "tight":
        give_back_at_once()  # before torch is imported
    from neq.cli.progress import ProgressDisplay
    from neq.cli.train import conclude
    from neq.experiment.memory_report import OutOfMemory
    from neq.experiment.run import run_training
    from neq.experiment.time_limit import Deadline
    from neq.planning.limit import MemoryExceeded, MemoryLimit
    from neq.training import stop_on_signals, total_epochs
    from neq.utils.console import Console
    from neq.utils.device import pick_device

    console, limits = Console(), plan.limits
    console.note(plan.described())
    until = time.time() + limits.deadline if until is None else until
    limit = MemoryLimit(limits.memory, pick_device(config.device))
    deadline = Deadline(until - time.time(), is_strict=True)
    try:
        with ProgressDisplay(console, total_epochs(config.run_config)) as display:
            folder = run_training(
                config,
                runs=RUNS,
                trackers=(limit, deadline, display),
                notes=console.note,
                opened=limit.open_data,
                stopping=stop_on_signals,
                checks=(limit.check,),
            )
    except (KeyboardInterrupt, Terminated) as error:
        raise type(error)("stopped and saved; run the same command again to continue") from None
    except (MemoryExceeded, OutOfMemory) as error:
        plan = plan.exceeded(max(limit.used, limits.memory))
        plan.write(path)
        console.warn(str(error) if isinstance(error, MemoryExceeded) else "out of memory")
        plan.check_hits()
        _replaced_by(path, flags, until)
    if deadline.is_over:
        console.warn(f"the time is over; the same command continues {folder}")
        return 0
    conclude(console, folder)
    if limit.used:
        console.note(f"training took {limit.used / 2**20:,.1f} of {limits.memory / 2**20:,.1f} MiB")
    return 0


def _planned(plan: DevicePlan, path: Path, run: Options) -> Config:
    """The configuration of the run under the chosen row; resumes what is there.

    Raises:
        UserError: the plan is of another run.
    """
    base, overrides = planned_settings(run)
    asked, given = plain_identity(resolve(base, overrides).config), given_settings(run, base)
    other = {key for key in {*asked, *plan.run} if asked.get(key) != plan.run.get(key)}
    other |= {key for key in PLANNED if (key in given) != (key in plan.given)}
    if other:
        differing = ", ".join(sorted(other))
        raise UserError(f"{path} is the plan of another run ({differing} differ); make one with neq plan")
    config = resolve(base, {**overrides, **plan.chosen.settings}).config
    return config.model_copy(update={"resume": find_run(config, RUNS).state == "unfinished"})


def _replaced_by(path: Path, flags: list[str], until: float) -> NoReturn:
    """Replaces this process by one that trains under a plan, for what is left of the time."""
    own = [str(path)] if until == math.inf else [str(path), f"--until={until}"]
    go_on(["train", "--plan", *own, *flags])


def _parser() -> Parser:
    parser = Parser(
        prog="neq train --plan",
        usage="neq train --plan auto --memory SIZE [--deadline TIME] [--KEY VALUE ...]\n"
        "       neq train --plan FILE [--KEY VALUE ...]",
        description="Train one run under the plan that neq plan prints, within its memory limit.",
    )
    parser.add_argument(
        "--plan", required=True, metavar="auto|FILE", help="auto, or a file of neq plan --out"
    )
    parser.add_limits(required=False)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser
