"""Reading official lists, with one line for a list that is missing or damaged."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neq.utils.errors import UserError, shown


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a list is read is an error of the list."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(
            f"list {str(path)!r} is missing; every official list is needed; run again with the published "
            "archive in place, or download it anew."
        ) from error
    except Exception as error:  # parsers of text, JSON and MATLAB files raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"list {str(path)!r} cannot be read ({type(error).__name__}: {shown(reason)}); delete it and run "
            "again with the published archive in place."
        ) from error


def rows(path: Path, columns: int) -> list[list[str]]:
    """The rows of a text list, blank lines and comments (#) left out.

    Args:
        path: the list, UTF-8.
        columns: how many fields each row has; the last one may hold blanks.

    Raises:
        UserError: the list is missing, is no text, or has a row with fewer fields.
    """
    with reading(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    table = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(maxsplit=columns - 1)
        if len(fields) != columns:
            raise UserError(
                f"line {number} of list {str(path)!r} is {shown(line)}, but {columns} fields are needed; "
                "delete the list and run again with the published archive in place."
            )
        table.append(fields)
    return table


def read_json(path: Path) -> Any:
    """A list published as JSON.

    Raises:
        UserError: it is missing or not JSON.
    """
    with reading(path), path.open("rb") as file:
        return json.load(file)
