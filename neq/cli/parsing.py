"""The parser of every command's arguments."""

from __future__ import annotations

import argparse
from typing import NoReturn

from neq.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and code 2, as every other mistake of a user is."""

    def error(self, message: str) -> NoReturn:
        """Refuses the arguments."""
        raise UserError(f"{self.prog}: {message}; see --help")
