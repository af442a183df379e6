"""`neq results book` and load_best_model.py: the runs of sweep files gathered into an Excel book."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from neq.cli.results_parser import ResultsParser
from neq.results.book import check_book, write_book
from neq.results.book_file import BookFile
from neq.results.check import Check
from neq.results.collect import NO_RUN, Run, group, match, read_sweeps
from neq.results.failures import with_failures
from neq.results.tables import run_key
from neq.results.wandb_runs import wandb_runs
from neq.runs.run_reader import Recorded, recorded_runs
from neq.utils.console import Console
from neq.utils.errors import UserError

DESCRIPTION = """Gathers every run of the sweep files' cells, by its recorded configuration, into an Excel
book: Summary (a row a setting, over seeds), Runs and Charts. A book that is there is updated: its rows are
matched by their settings, everything else in it stays, and the former book is kept as NAME.bak."""
# More reasons than these are in the book.
MOST_TOLD = 10


def command(arguments: list[str]) -> int:
    """Writes the book; gives the exit code: 1 when a best network does not give its recorded figure.

    Args:
        arguments: "book", then flags.
    """
    options = _parser().parse_args(arguments[1:])
    files = [*options.files, *options.sweeps]
    if not files:
        raise UserError(
            "neq results book: no sweep file is given; give some, as policies/digits/velocity.yaml"
        )
    console, output = Console(), Path(options.output)
    BookFile(output)
    if options.evaluate or options.wandb:  # a book that cannot be written is told before what takes long
        check_book(output, options.force)
    sweeps = read_sweeps(files, options.config_file)

    def tell(line: str) -> None:
        console.print(f"neq: {line}", style="dim", highlight=False, markup=False)

    recorded = recorded_runs(options.runs_dir) + wandb_runs(options.wandb, tell=tell)
    runs = with_failures(match(sweeps, recorded, options.runs_dir), sweeps, options.runs_dir)
    checks = None
    if options.evaluate:
        from neq.results.evaluation import evaluate_runs  # imports torch

        checks = evaluate_runs(runs, tell)
    written = write_book(output, runs, checks, options.force)
    _tell_runs(console, runs, recorded)
    failed = _tell_checks(console, runs, checks or {})
    rows = f"{len(group(runs))} settings, {written.new} of them new"
    former = f"; the former book is {written.former.name}" if written.former else ""
    console.print(f"{written.path}: {rows}{former}", highlight=False, markup=False)
    return 1 if failed else 0


def _parser() -> ResultsParser:
    parser = ResultsParser("book", DESCRIPTION, needs_file=False)
    parser.add_argument(
        *("-w", "--sweeps"), nargs="+", action="extend", default=[], metavar="FILE", help="sweep files too"
    )
    parser.add_argument(
        *("-o", "--output"),
        default="output.xlsx",
        metavar="BOOK",
        help=".xlsx, .xlsm, .xltx or .xltm (default: output.xlsx)",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="measure the test set again with every best network, and flag what differs",
    )
    parser.add_argument(
        "--wandb",
        nargs="+",
        action="extend",
        default=[],
        metavar="ENTITY/PROJECT/SWEEP",
        help="W&B sweeps whose runs count too",
    )
    parser.add_argument(
        "--force", action="store_true", help="update a book although some of what it holds is lost by that"
    )
    return parser


def _tell_runs(console: Console, runs: Sequence[Run], recorded: Sequence[Recorded]) -> None:
    """How many runs are in which state, and why those that began are not done."""
    states = Counter(run.state for run in runs)
    told = ", ".join(f"{states[state]} {state}" for state in ("done", "unfinished", "damaged", "missing"))
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    console.print(f"{count}: {told}", highlight=False, markup=False)
    broken = [run for run in runs if run.state != "done" and run.reason != NO_RUN]
    for run in broken[:MOST_TOLD]:
        place = run.place or f"seed {run.seed} of {run.config['neuron_selection']}"
        console.print(f"  {place}: {run.reason}", highlight=False, markup=False)
    if len(broken) > MOST_TOLD:
        console.print(f"  and {len(broken) - MOST_TOLD} more, see the sheet Runs", highlight=False)
    known = {run.folder for run in runs}
    lost = [one for one in recorded if one.identity is None and one.folder not in known]
    for one in lost[:MOST_TOLD]:
        line = f"  {one.place}: {one.reason}; no sweep can tell whether it is its run"
        console.print(line, highlight=False, markup=False)


def _tell_checks(console: Console, runs: Sequence[Run], checks: dict[str, Check]) -> int:
    """Every figure that is not what was recorded; gives their number."""
    failed = [(run, checks[key]) for run in runs if (key := run_key(run)) in checks]
    failed = [(run, check) for run, check in failed if check.differs or check.top1 is None]
    for run, check in failed:
        figures = ""
        if check.top1 is not None:
            recorded = "none" if check.recorded is None else f"{check.recorded:.4f} %"
            figures = f": {check.top1:.4f} % on the test set, {recorded} recorded"
        console.print(f"  {run.place} {check.said}{figures}", style="red", highlight=False, markup=False)
    if checks:
        agree = len(checks) - len(failed)
        console.print(
            f"{len(checks)} best networks measured again: {agree} as recorded", highlight=False, markup=False
        )
    return len(failed)
