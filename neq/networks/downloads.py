"""The error for a library's weights that cannot be had."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

from neq.errors import UserError


def not_loaded(net_name: str, library: str, url: str, file: Path, error: Exception) -> UserError:
    """What was tried and what to do, in one line.

    Args:
        net_name: what the user calls the network.
        library: whose weights they are.
        url: where they are downloaded from.
        file: where they are looked for first.
        error: what came of it.
    """
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    needs = f"net_name {net_name!r} needs {library}'s weights"
    if file.exists() and not isinstance(error, URLError):
        return UserError(
            f"{needs}, but {file} cannot be read ({reason}); remove it, and it is downloaded again"
        )
    return UserError(
        f"{needs}, which could not be loaded from {url} ({reason}); put that file at {file}, "
        "give weights FILE, or weights none for a random start"
    )
