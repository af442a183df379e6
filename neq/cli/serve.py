"""`neq serve`: a local web page that classifies photos."""

from __future__ import annotations

from pathlib import Path

from neq.cli.parsing import Parser
from neq.utils.errors import UserError


def command(arguments: list[str]) -> int:
    """Serves the page until Ctrl-C.

    Args:
        arguments: "serve", then the folder of a run and options.
    """
    parser = Parser(
        prog="neq serve",
        description="Serve a page on this machine: drop a photo, see the classes that a run's best network "
        "gives it. Photos are not kept. Ctrl-C ends it.",
    )
    parser.add_argument(
        "network", type=Path, metavar="RUN_DIR", help="folder of a run, or of a copy of its network"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0: a free one (default: 8000)")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: this machine alone)"
    )
    options = parser.parse_args(arguments[1:])
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port {options.port} is not allowed: 0 to 65535")
    from neq.results.best_network import load_best, network_folder
    from neq.results.serving import PhotoServer, is_loopback
    from neq.utils.console import Console

    console, best = Console(), load_best(network_folder(options.network.expanduser()))
    with PhotoServer(best, options.host, options.port) as server:
        if not is_loopback(options.host):
            console.warn("others reach this page: it has no password and no encryption")
        console.lines(f"{server.url} classifies photos by {options.network}; Ctrl-C ends it")
        server.serve_forever()
    return 0
