"""`neq retrain`: a network trained on one shifted task after another."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neq.cli.next_process import go_on
from neq.cli.parsing import Parser
from neq.config import Config, Options, parse_flags
from neq.utils.errors import UserError
from neq.utils.exit_codes import Terminated
from neq.utils.launch_env import launch_rank
from neq.utils.malloc import give_back_at_once

if TYPE_CHECKING:
    from neq.cli.progress import ProgressDisplay
    from neq.planning.sequence import Stage
    from neq.planning.sequence_record import SequenceRecord
    from neq.planning.task_limits import TaskLimits

# Views of the record, beside it.
PICTURE, BOOK = "sequence.png", "sequence.xlsx"
# Options that --plan brings.
_OF_PLANS = ("--deadline", "--probe")


def command(arguments: list[str]) -> int:
    """Retrains a network on a sequence of tasks; returns the exit code.

    Args:
        arguments: "retrain", then the file, options, and flags as of `neq train`.
    """
    since = time.monotonic()
    own, run = _options(arguments[1:])
    from neq.planning.sequence import find_sequence, read_sequence

    sequence = read_sequence(
        find_sequence(own.sequence),
        run.overrides,
        run.config_file if run.names_config else None,
        _limits(own),
    )
    out = own.out.expanduser() if own.out else Path("retrained") / sequence.name
    if sequence.limits is not None:
        _give_back(out)

    from neq.cli.progress import ProgressDisplay
    from neq.planning.retrain import retrain
    from neq.planning.sequence_record import RECORD, TABLE
    from neq.training import stop_on_signals, total_epochs
    from neq.utils.console import Console, figures_table

    console = Console()

    @contextmanager
    def follow(stage: Stage, config: Config) -> Iterator[ProgressDisplay]:
        with ProgressDisplay(console, total_epochs(config.run_config)) as display:
            yield display

    try:
        record = retrain(
            sequence,
            out,
            follow=follow,
            notes=console.note,
            stopping=stop_on_signals,
            between=partial(go_on, arguments),
            since=since,
        )
    except (KeyboardInterrupt, Terminated) as error:
        raise type(error)("stopped and saved; run the same command again to continue") from None
    header, *rows = record.rows()
    headings = [name.replace("_", "_ ") for name in header[1:]]  # lines break at spaces
    table = figures_table("top-1 in %", headings, title="test photos of each task")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    plans, *rows = record.plan_rows()
    if rows:
        table = figures_table(plans[0], plans[1:], title="which plan ran when")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for stage in record.stages:
        if stage.stored is not None:
            console.lines(
                f"{out / stage.stored['file']}: {stage.stored['bytes']:,} bytes, "
                f"{stage.stored['top1']:.2f} % after reloading"
            )
    for line in _views(record):
        console.note(line)
    console.lines(f"{out}: a folder for each run, {RECORD}, {TABLE}, {PICTURE} and {BOOK}")
    return 0


def _views(record: SequenceRecord) -> list[str]:
    """Draws and writes what is missing or older than the record; a line for each that cannot be written."""
    from neq.planning.sequence_book import write_book
    from neq.planning.sequence_picture import draw
    from neq.planning.sequence_record import RECORD
    from neq.results.pictures import save_figure

    made = {
        PICTURE: lambda path: save_figure(draw(record), path),
        BOOK: lambda path: write_book(record, path),
    }
    since, failed = (record.folder / RECORD).stat().st_mtime, []
    for name, make in made.items():
        path = record.folder / name
        if path.exists() and path.stat().st_mtime >= since:
            continue
        try:
            make(path)
        except OSError as error:
            failed.append(f"{name} cannot be written ({error.strerror})")
    return failed


def _limits(own: argparse.Namespace) -> TaskLimits | None:
    """The limits of each task by the options; none without --plan.

    Raises:
        UserError: they are incomplete.
    """
    if own.plan is None:
        return None
    if own.memory is None:
        raise UserError("--plan auto needs the limit that it is for; give --memory SIZE, as 256MiB")
    if own.probe and own.deadline == math.inf:
        raise UserError("--probe takes shares of the deadline; give --deadline TIME, as 10min")
    from neq.planning.rules import Limits
    from neq.planning.task_limits import TaskLimits

    return TaskLimits(Limits(own.memory, own.deadline), own.probe)


def _give_back(out: Path) -> None:
    """Sets the memory setting "tight" before torch is imported, if the task that comes next trains by it."""
    from neq.planning.task_plan import latest_memory

    if latest_memory(out) == "tight":
        give_back_at_once()


def _options(arguments: list[str]) -> tuple[argparse.Namespace, Options]:
    """The command's own options, and those of its runs."""
    parser = Parser(
        prog="neq retrain",
        usage="neq retrain SEQUENCE [--out DIR] [--plan auto --memory SIZE [--deadline TIME [--probe]]] "
        "[--KEY VALUE ...]",
        description="Train a network on one task after another, as shifts arrive: corruptions of a "
        "data set, or several data sets with the same classes. After each task it is evaluated on all tasks "
        "so far. Run the same command again to continue. Further flags are those of neq train, for all runs.",
    )
    parser.add_argument(
        "sequence", metavar="SEQUENCE", help="a file of tasks in order, or the name of a shipped one"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the sequence (default: retrained/NAME)"
    )
    # Without a plan --memory is a setting of the runs, fast or tight.
    names = {each.partition("=")[0] for each in arguments}
    if names & {"--plan", "-h", "--help"}:
        parser.add_argument(
            "--plan", choices=["auto"], help="train each task under a plan, within its limits"
        )
        parser.add_limits(required=False, of="each task")
        parser.add_argument(
            "--probe",
            action="store_true",
            help="choose plans by what they gain, anew in each tenth of the deadline",
        )
    elif names & set(_OF_PLANS):
        raise UserError(f"{' and '.join(_OF_PLANS)} are those of a plan; give --plan auto --memory SIZE too")
    own, rest = parser.parse_known_args(arguments, argparse.Namespace(plan=None))
    run = parse_flags(rest, "neq retrain")
    for switch, is_given in (("--dry-run", run.dry_run), ("--overwrite", run.overwrite)):
        if is_given:
            raise UserError(f"{switch} is not allowed; give another --out, or take neq train")
    if launch_rank().count > 1:
        raise UserError("neq retrain runs in one process; start it without torchrun")
    return own, run
