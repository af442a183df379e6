"""`neq results domains`: how far the two domains of an adaptation lie apart, before and after training."""

from __future__ import annotations

from pathlib import Path

from neq.cli.parsing import Parser
from neq.utils.console import Console
from neq.utils.errors import UserError

DESCRIPTION = """Print the A-distance of the features of both domains of an adaptation, by the network that
its run started from and by its best one, and draw maps of them by t-SNE."""


def command(arguments: list[str]) -> int:
    """Prints the distances and writes domains.png; returns the exit code.

    Args:
        arguments: "domains", then the run's folder and flags.
    """
    options = _parser().parse_args(arguments[1:])
    folder = Path(options.run)
    path = folder / "domains.png" if options.output is None else Path(options.output)
    if not path.parent.is_dir():
        raise UserError(f"--output: there is no folder {path.parent}; make it first")
    from neq.adaptation.domain_distance import a_distance, draw_domains, features_of_run

    apart, console = features_of_run(folder), Console()
    draw_domains(apart, path, folder.name)
    for name, (source, target) in (("before", apart.before), ("after", apart.after)):
        console.print(f"A-distance {name}: {a_distance(source, target):.2f}")
    console.print(f"wrote {path}")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="neq results domains", description=DESCRIPTION)
    parser.add_argument("run", help="folder of a run of neq adapt")
    parser.add_argument("--output", metavar="PNG", help="default: domains.png in the run's folder")
    return parser
