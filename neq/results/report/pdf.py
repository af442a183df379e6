"""A page as PDF, printed by a Chromium that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from neq.utils.errors import UserError

BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    "microsoft-edge",
)
SECONDS = 120


def find_browser() -> str:
    """The path of a browser that prints without a window.

    Raises:
        UserError: there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UserError(
            "a PDF is printed by Chromium or Chrome, and neither is installed; install one (apt install "
            "chromium), or leave --pdf out and print the page from any browser"
        )
    return found


def print_pdf(html: str) -> bytes:
    """A page that holds everything itself, printed.

    Raises:
        UserError: there is no browser, or it fails.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="neq-") as place:
        page, target = Path(place) / "page.html", Path(place) / "page.pdf"
        page.write_text(html, encoding="utf-8")
        flags = ["--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={place}/profile"]
        if os.geteuid() == 0:  # Chromium does not start its sandbox for root
            flags.append("--no-sandbox")
        command = [browser, *flags, "--no-pdf-header-footer", f"--print-to-pdf={target}", page.as_uri()]
        try:
            subprocess.run(
                command, check=True, timeout=SECONDS, stdin=subprocess.DEVNULL, capture_output=True, cwd=place
            )
            return target.read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(
                f"{browser} could not print the page ({type(error).__name__}); leave --pdf out, and print "
                "the page from a browser"
            ) from error
