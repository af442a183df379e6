"""Readers of official lists; a missing or damaged list is an error of one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neq.utils.errors import UserError, first_line, shown

_REMEDY = "delete it and run again to get the published one"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Report any error inside the block as an error of the list.

    Raises:
        UserError: the list is missing or cannot be read.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"list {str(path)!r} is missing; every official list is needed; {_REMEDY}") from error
    except Exception as error:  # parsers of text, JSON and MATLAB files raise nearly anything
        reason = f"{type(error).__name__}: {shown(first_line(error))}"
        raise UserError(f"list {str(path)!r} cannot be read ({reason}); {_REMEDY}") from error


def rows(path: Path, columns: int) -> list[list[str]]:
    """The rows of a text list, without blank lines and comments (#).

    Args:
        path: the list, in UTF-8.
        columns: fields of each row; the last one may contain blanks.

    Raises:
        UserError: the list is missing, is not text, or has a row with fewer fields.
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
                f"{_REMEDY}"
            )
        table.append([*fields[:-1], fields[-1].rstrip()])
    return table


def read_json(path: Path) -> Any:
    """The content of a list in JSON.

    Raises:
        UserError: it is missing or not JSON.
    """
    with reading(path), path.open("rb") as file:
        return json.load(file)
