"""`neq report`: one page about runs, to be handed on."""

from __future__ import annotations

from pathlib import Path

from neq.cli.parsing import Parser, check_new_file
from neq.utils.errors import UserError


def command(arguments: list[str]) -> int:
    """Writes the report; returns the exit code.

    Args:
        arguments: "report", then folders of runs and options.
    """
    options = _parser().parse_args(arguments[1:])
    page: Path = options.output.expanduser()
    if page.suffix != ".html":
        raise UserError(f"--output {page} is not a name for a page; let it end in .html")
    files = {"--output": page}
    if options.pdf:
        files["--pdf"] = page.with_suffix(".pdf")
    if options.xlsx:
        files["--xlsx"] = page.with_suffix(".xlsx")
    for flag, path in files.items():
        check_new_file(flag, path, options.force)
    from neq.results.best_network import network_folder
    from neq.results.report.contents import run_reports
    from neq.results.report.page import render
    from neq.results.report.pdf import find_browser, print_pdf
    from neq.results.report.sheets import book
    from neq.utils.atomic_files import atomic_file
    from neq.utils.console import Console
    from neq.utils.device import pick_device

    if options.pdf:
        find_browser()  # refused before what takes long
    console = Console()
    folders = [network_folder(Path(folder).expanduser()) for folder in options.folders]
    runs = run_reports(folders, pick_device(options.device), not options.no_speed, console.note)
    html = render(runs)
    contents = {"--output": html.encode("utf-8", "backslashreplace")}
    if options.pdf:
        contents["--pdf"] = print_pdf(html)
    if options.xlsx:
        contents["--xlsx"] = book(runs)
    for flag, content in contents.items():
        try:
            with atomic_file(files[flag]) as file:
                file.write(content)
        except OSError as error:
            raise UserError(f"{flag} {files[flag]} cannot be written ({error.strerror})") from error
        console.lines(f"{files[flag]}: {len(content) / 2**20:.1f} MiB")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="neq report",
        description="Write one page about runs, side by side: accuracy by class, confusion, calibration, "
        "wrong photos, curves, size, cost of training, speed of inference. The page is one file without "
        "scripts. The evaluation and the speed are kept in each run's folder and measured once.",
    )
    add = parser.add_argument
    add("folders", nargs="+", metavar="RUN_DIR", help="folders of runs, or of copies of their networks")
    add("--output", type=Path, default=Path("report.html"), metavar="FILE",
        help="the page (default: report.html)")  # fmt: skip
    add("--pdf", action="store_true", help="write the page as .pdf too, printed by an installed Chromium")
    add("--xlsx", action="store_true", help="write the tables as .xlsx too")
    add("--no-speed", action="store_true", help="leave the speed of inference out")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="that evaluates (default: auto)")
    add("--force", action="store_true", help="replace files that are there")
    return parser
