"""Replacing this process by one that goes on: memory that a process has taken counts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def go_on(arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by `neq ARGUMENTS`, under the same number.

    Args:
        arguments: of the command, its name first.
    """
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "neq", *arguments])
