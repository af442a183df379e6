"""A headless Chromium that tests drive over pipes by its DevTools protocol; skipped where there is none."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neq.results.report.pdf import BROWSERS

SECONDS = 60


class Tab:
    """One tab.

    Args:
        send: file that commands go to.
        receive: file that answers come from.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **given: Any) -> dict[str, Any]:
        """Sends a command; returns its result."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": given, **session}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._receive, 2**16)
            assert part, "the browser ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Loads a page."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        self.command("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Waits for an expression to become true."""
        end = time.monotonic() + SECONDS
        while not self.value(script):
            assert time.monotonic() < end, f"never: {script}"
            time.sleep(0.05)

    def choose(self, selector: str, file: Path) -> None:
        """Chooses a file in an input, as a user does."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def complaints(self) -> list[str]:
        """What the browser logged: errors of scripts, refusals of the content policy, requests elsewhere."""
        self.value("1")  # after which earlier events have arrived
        found = [each["params"]["entry"]["text"] for each in self._of("Log.entryAdded")]
        found += [str(each["params"]) for each in self._of("Runtime.exceptionThrown")]
        return found

    def requests(self) -> list[str]:
        """The addresses that were requested."""
        self.value("1")
        return [each["params"]["request"]["url"] for each in self._of("Network.requestWillBeSent")]

    def _of(self, method: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each.get("method") == method]


@contextlib.contextmanager
def browser_tab(folder: Path) -> Iterator[Tab]:
    """A tab of a new browser.

    Args:
        folder: for its profile.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium or Chrome is installed")
    commands, send = os.pipe()
    receive, answers = os.pipe()
    flags = ["--headless", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
    flags += ["--no-sandbox"] if os.geteuid() == 0 else []
    flags += [f"--user-data-dir={folder / 'profile'}"]
    # It reads from 3 and writes to 4.
    script = f'exec "$@" 3<&{commands} 4>&{answers}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", program, *flags],
        pass_fds=(commands, answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    try:
        yield Tab(send, receive)
    finally:
        os.close(send)
        os.close(receive)
        process.terminate()
        process.wait(SECONDS)
