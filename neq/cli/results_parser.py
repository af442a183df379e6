"""The arguments that all `neq results` commands share."""

from __future__ import annotations

from neq.cli.parsing import Parser


class ResultsParser(Parser):
    """The parser of `neq results NAME FILE ...`.

    Args:
        name: of the command.
        description: in its help.
        needs_file: whether a FILE is required; false where an option can name one instead.
    """

    def __init__(self, name: str, description: str, needs_file: bool = True) -> None:
        super().__init__(prog=f"neq results {name}", description=description, allow_abbrev=False)
        self.add_argument(
            "files",
            nargs="+" if needs_file else "*",
            metavar="FILE",
            help="sweep files, as policies/digits/su.yaml",
        )
        self.add_runs_dir()
        self.add_config_file()
        self.add_argument("--debug", action="store_true", help="show tracebacks")
