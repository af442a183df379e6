"""`neq plan`: how a run fits a memory limit and a deadline, as a table and a file that `neq train` takes."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from neq.cli.parsing import Parser, check_new_file
from neq.config import Options, find_config, parse_flags, read_yaml
from neq.config.flags import default_config
from neq.config.keys import flatten_file
from neq.planning.configurations import DECIDED, with_policy
from neq.utils.console import figures_table
from neq.utils.errors import UserError

if TYPE_CHECKING:
    from neq.planning.device_plan import DevicePlan, PlannedRow
    from neq.planning.gain import Gain

# What the plan decides itself, or a run that is not planned yet does not have.
REFUSED = ("run_dir", "resume", *DECIDED)
TRAIN = ("neq", "train", "--plan")
# Rows of the table without --all.
SHOWN = 12


def command(arguments: list[str]) -> int:
    """Prints and writes a plan; returns the exit code.

    Args:
        arguments: "plan", then options, and flags as of `neq train`.
    """
    own, flags = _parser().parse_known_args(arguments[1:])
    run = run_options("neq plan", flags)
    if own.probe and own.deadline == math.inf:
        raise UserError("--probe takes a share of the deadline; give --deadline TIME, as 10min")
    if own.out is not None:
        check_new_file("--out", own.out, own.force)
    from neq.planning.planning import open_planner
    from neq.planning.rules import Limits
    from neq.utils.console import Console

    console = Console(highlight=False)
    base, overrides = planned_settings(run)
    gains: dict[int, Gain] = {}
    with open_planner(base, overrides, given_settings(run, base), console.note) as planner:
        plan = planner.plan(Limits(own.memory, own.deadline))
        if own.probe:
            plan, gains = planner.probe(plan)
    console.print(plan_table(plan, None if own.all else SHOWN))
    for line in struck_lines(plan):
        console.lines(line)
    for number, gain in gains.items():
        top1 = f"{gain.before:.2%} to {gain.after:.2%} validation top-1 in {gain.seconds:.0f} s"
        console.lines(f"  probe of row {number}: {top1}")
    if own.out is not None:
        plan.write(own.out)
        console.lines(f"{own.out}: the plan; run it by", f"  {shlex.join([*TRAIN, str(own.out), *flags])}")
    return 0


def run_options(prog: str, flags: list[str]) -> Options:
    """The options of the run that is planned.

    Args:
        prog: the command.
        flags: of the run.

    Raises:
        UserError: a mistake in them, or what the plan decides.
    """
    run = parse_flags(flags, prog)
    for name in REFUSED:
        if name in run.overrides:
            raise UserError(f"--{name} is not allowed: the plan decides it; leave it out")
    if run.dry_run or run.overwrite:
        raise UserError("--dry-run and --overwrite are not allowed with a plan; leave them out")
    return run


def planned_settings(run: Options) -> tuple[dict[str, object], dict[str, object]]:
    """The file that the planned run starts from, and its overrides: the policy auto where none is given."""
    overrides = dict(run.overrides)
    base = dict(read_yaml(find_config(run.config_file if run.names_config else default_config(overrides))))
    objective = {**flatten_file(base), **overrides}.get("objective") or "classification"
    if objective != "classification":
        raise UserError(f"objective {objective!r} cannot be planned; only classification can")
    if not run.names_config:
        overrides = with_policy(base, overrides)
    return base, overrides


def given_settings(run: Options, base: Mapping[str, object]) -> set[str]:
    """The settings that a plan does not change: those of flags, and of a file that is named."""
    return {*run.overrides, *(flatten_file(base) if run.names_config else ())}


def plan_table(plan: DevicePlan, most: int | None) -> Table:
    """The survivors, the one that runs first, then what is struck, with its reason.

    Args:
        plan: to show.
        most: rows; None: all.
    """
    limits = plan.limits
    title = f"plans within {limits.memory / 2**20:,.1f} MiB"
    title += "" if limits.deadline == math.inf else f" and {limits.deadline:,.0f} s"
    headings = ("trains", "norms", "saved", "images", "segments", "memory", "MiB", "s", "")
    table = figures_table("", headings, title)
    struck = sorted(
        (number for number, row in enumerate(plan.rows) if row.reason),
        key=lambda number: plan.rows[number].rule in ("R3", "R4"),
    )
    for number in [*plan.order, *struck][:most]:
        table.add_row(str(number), *_cells(plan, plan.rows[number], number == plan.number))
    return table


def struck_lines(plan: DevicePlan) -> list[str]:
    """How many configurations survive, and how many each rule strikes."""
    counts = Counter(row.rule for row in plan.rows if row.reason)
    rules = {
        "R1": "need more memory",
        "R2": "take longer",
        "R3": "learn the same as another row, which needs neither more memory nor more time",
        "R4": "need more memory than another row, which needs too much",
    }
    struck = [f"  {rule}: {counts[rule]} {what}" for rule, what in rules.items() if counts[rule]]
    return [f"{len(plan.rows)} configurations, {len(plan.order)} of which survive", *struck]


def _cells(plan: DevicePlan, row: PlannedRow, is_chosen: bool) -> list[str]:
    settings = row.settings
    norms = str(settings["norm_mode"])
    if (ghost := settings.get("ghost_batch_size")) is not None:
        norms += f", {ghost}"
    return [
        "as set" if row.share is None else f"{row.share:.0%}",
        norms,
        str(settings["saved_precision"]),
        str(settings.get("micro_batch_size", "all")),
        "" if row.peak is None else str(1 + len(settings.get("checkpoint_cuts", ()))),
        str(settings["memory"]),
        "" if row.peak is None else f"{row.peak / 2**20:,.1f}",
        "" if row.seconds is None else f"{row.seconds:,.0f}",
        "runs" if is_chosen else row.rule if row.by is None else f"{row.rule} ({row.by})",
    ]


def _parser() -> Parser:
    parser = Parser(
        prog="neq plan",
        usage="neq plan --memory SIZE [--deadline TIME] [--out FILE] [--all] [--KEY VALUE ...]",
        description="Compare the ways to run a training within a memory limit and a deadline: what trains, "
        "how many images pass through at once, where the network is cut and recomputed, on which statistics, "
        "in which precision. Further flags are those of neq train, and stay as they are given.",
    )
    parser.add_limits()
    add = parser.add_argument
    add("--out", type=Path, metavar="FILE", help="write the plan as JSON")
    add("--probe", action="store_true", help="train all that can be learned for a short time, to compare it")
    add("--all", action="store_true", help=f"print all configurations, not {SHOWN}")
    add("--force", action="store_true", help="replace FILE")
    return parser
