"""`neq results book` and load_best_model.py: the runs of sweep files gathered into an Excel book."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import neq.adaptation.transfer_table  # noqa: F401  (its sheet)
from neq.cli.parsing import ResultsParser
from neq.results.book import check_book, write_book
from neq.results.book_file import BookFile
from neq.results.failures import with_failures
from neq.results.frame import frame
from neq.results.runs_of_sweep import NO_RUN, match, read_sweeps, run_key, started
from neq.results.verdicts import Check
from neq.results.wandb_runs import wandb_runs
from neq.runs.run_reader import Run, recorded_runs
from neq.utils.console import Console
from neq.utils.errors import UserError

DESCRIPTION = """Gather every run of the sweep files' cells, found by its recorded configuration, into an
Excel book: Summary (a row a setting, over seeds), Runs and Charts. Without files, those in policies/ that
have runs are taken. A book of that name is written anew with the runs that it holds already; sheets that
you added stay, and the earlier book is kept as NAME.bak."""
POLICIES = Path("policies")
# Further reasons are in the book.
MOST_PRINTED = 10


def command(arguments: list[str]) -> int:
    """Writes the book.

    Args:
        arguments: "book", then flags.

    Returns:
        The exit code: 1 if a best network does not reproduce its recorded figure.
    """
    options = _parser().parse_args(arguments[1:])
    given = [*options.files, *options.sweeps]
    files = given or sorted(map(str, POLICIES.glob("**/*.yaml")))
    if not files:
        raise UserError(
            f"neq results book: no sweep file is given, and {POLICIES}/ has none; "
            "give some, as policies/digits/velocity.yaml"
        )
    console, output = Console(), Path(options.output)
    BookFile(output)
    if options.evaluate or options.wandb:  # refused before what takes long
        check_book(output, options.force)
    sweeps = read_sweeps(files, options.config_file)

    recorded = recorded_runs(options.runs_dir) + wandb_runs(options.wandb, notify=console.note)
    if not given:
        sweeps = started(sweeps, recorded, options.runs_dir)
        if not sweeps:
            raise UserError(
                f"neq results book: no run of the sweep files in {POLICIES}/ is in {options.runs_dir}/; "
                "start some with neq sweep FILE, or give --runs-dir"
            )
        console.lines(f"sweeps with runs: {', '.join(sweeps)}")
    runs = with_failures(match(sweeps, recorded, options.runs_dir), sweeps, options.runs_dir)
    checks: dict[str, Check] = {}
    if options.evaluate:
        from neq.results.reevaluation import evaluate_runs  # imports torch

        checks = evaluate_runs(runs, console.note)
    written = write_book(output, frame(runs, checks), options.force)
    _print_runs(console, runs, recorded)
    failed = _print_checks(console, runs, checks)
    rows = f"{written.settings} settings, {written.new} of them new"
    earlier = f"; the earlier book is {written.earlier.name}" if written.earlier else ""
    console.lines(f"{written.path}: {rows}{earlier}")
    if written.mixed:
        console.warn(
            f"{written.mixed} rows of Summary are over different environments; see Environments differ"
        )
    return 1 if failed else 0


def _parser() -> ResultsParser:
    parser = ResultsParser("book", DESCRIPTION, needs_file=False)
    parser.add_argument(
        *("-w", "--sweeps", "--wandb_sweep_config"),
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="further sweep files",
    )
    parser.add_argument(
        *("-o", "--output", "--output_file"),
        default="output.xlsx",
        metavar="BOOK",
        help="an .xlsx file (default: output.xlsx)",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="evaluate every best network on the test set again, and mark differences",
    )
    parser.add_argument(
        "--wandb",
        nargs="+",
        action="extend",
        default=[],
        metavar="ENTITY/PROJECT/SWEEP",
        help="include the runs of W&B sweeps",
    )
    parser.add_argument(
        "--force", action="store_true", help="drop what cannot be kept of the book that exists"
    )
    return parser


def _print_runs(console: Console, runs: Sequence[Run], recorded: Sequence[Run]) -> None:
    """How many runs are in which state, and why those that were started are not done."""
    states = Counter(run.state for run in runs)
    counts = ", ".join(f"{states[state]} {state}" for state in ("done", "unfinished", "damaged", "missing"))
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    console.lines(f"{count}: {counts}")
    broken = [run for run in runs if run.state != "done" and run.reason != NO_RUN]
    for run in broken[:MOST_PRINTED]:
        place = run.place or f"seed {run.seed} of {run.config['neuron_selection']}"
        console.lines(f"  {place}: {run.reason}")
    if len(broken) > MOST_PRINTED:
        console.lines(f"  and {len(broken) - MOST_PRINTED} more, see the sheet Runs")
    known = {run.folder for run in runs}
    lost = [one for one in recorded if not one.identity and one.folder not in known]
    for one in lost[:MOST_PRINTED]:
        console.lines(f"  {one.place}: {one.reason}; it cannot be matched with a sweep")


def _print_checks(console: Console, runs: Sequence[Run], checks: dict[str, Check]) -> int:
    """Every figure that is not as recorded.

    Returns:
        How many there are.
    """
    failed = [(run, checks[key]) for run in runs if (key := run_key(run)) in checks]
    failed = [(run, check) for run, check in failed if check.differs or check.top1 is None]
    for run, check in failed:
        figures = ""
        if check.top1 is not None:
            recorded = "none" if check.recorded is None else f"{check.recorded:.4f} %"
            figures = f": {check.top1:.4f} % on the test set, {recorded} recorded"
        console.lines(f"  {run.place} {check.verdict}{figures}", style="red")
    if checks:
        agree = len(checks) - len(failed)
        console.lines(f"{len(checks)} best networks measured again: {agree} as recorded")
    return len(failed)
