"""A local web page that classifies photos by a run's best network, on the standard library's HTTP server.

The server has one page and one address that takes an image. It reads no file by a name that it is sent, keeps
nothing, and answers requests by its own name alone, so that pages of other sites cannot use it.
"""

from __future__ import annotations

import io
import ipaddress
import json
import secrets
import sys
import threading
from functools import cached_property
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any

from PIL import UnidentifiedImageError

from neq.data.decoding import to_tensor
from neq.results.best_network import BestNetwork
from neq.results.prediction import TOP, predict, torch_outputs
from neq.utils.errors import UserError, first_line, printable
from neq.utils.images import open_image

MOST_BYTES, MOST_PIXELS = 20 * 2**20, 50_000_000
_CHUNK = 2**20
SECONDS = 30  # that a client may take to send anything
PAGE = Path(__file__).with_name("serving.html")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Refused(Exception):
    """A request that is not answered as it asks.

    Args:
        status: of HTTP.
        reason: one line.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class PhotoServer(ThreadingHTTPServer):
    """The server; photos are classified one at a time.

    Args:
        best: the network.
        host: address to listen on.
        port: 0 takes a free one.

    Raises:
        UserError: the address or the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, best: BestNetwork, host: str = "127.0.0.1", port: int = 8000) -> None:
        self._best, self._outputs, self._lock = best, torch_outputs(best), threading.Lock()
        self._host = host
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(
                f"{host}, port {port}, cannot be used ({reason}); give another --port, or --host"
            ) from None

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{self._host}:{self.server_port}/"

    @cached_property
    def hosts(self) -> frozenset[str] | None:
        """The values of the header Host that are answered; none: any, where others reach the server."""
        if not is_loopback(self._host):
            return None
        names = (self._host, "localhost", "127.0.0.1")
        plain = names if self.server_port == 80 else ()  # which browsers leave out
        return frozenset((*plain, *(f"{name}:{self.server_port}" for name in names)))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports an error of a request in one line; a client that went away is none."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            print(f"neq: a request failed: {printable(first_line(error))}", file=sys.stderr)

    def page(self, nonce: str) -> bytes:
        """The page; its script and its style carry the nonce."""
        about = escape(f"{self._best.config.net_config.net_name}, {len(self._best.classes)} classes")
        return Template(PAGE.read_text(encoding="utf-8")).substitute(nonce=nonce, about=about).encode()

    def classify(self, content: bytes) -> list[dict[str, Any]]:
        """The most probable classes of an image file's content.

        Raises:
            Refused: it is no image, or has too many pixels.
        """
        with self._lock:
            try:
                with open_image(io.BytesIO(content)) as image:
                    if image.width * image.height > MOST_PIXELS:
                        raise Refused(413, f"it has more than {MOST_PIXELS:,} pixels")
                    pixels = to_tensor(image)
            except Refused:
                raise
            except UnidentifiedImageError:
                raise Refused(415, "it is in no known image format") from None
            except Exception as error:  # decoders raise nearly anything on a damaged image
                raise Refused(415, f"it cannot be read: {first_line(error)}") from None
            found = next(predict(self._best, pixels, TOP, self._outputs))
        return [
            {"name": name.encode("utf-8", "backslashreplace").decode(), "probability": share}
            for name, share in zip(found.classes, found.probabilities, strict=True)
        ]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    server: PhotoServer
    server_version, sys_version = "neq", ""
    timeout = SECONDS

    def do_GET(self) -> None:
        nonce = secrets.token_urlsafe(16)
        try:
            self._check("/")
            self._send(200, "text/html; charset=utf-8", self.server.page(nonce), nonce)
        except Refused as error:
            self._refuse(error)

    def do_POST(self) -> None:
        try:
            self._check("/classify")
            content = self._body()
            try:
                classes = self.server.classify(content)
            except Refused:
                raise
            except Exception as error:  # the client gets an answer, the terminal the reason
                self.server.handle_error(self.request, self.client_address)
                raise Refused(500, f"it cannot be classified: {first_line(error)}") from None
            self._send(200, "application/json", json.dumps({"classes": classes}).encode())
        except Refused as error:
            self._refuse(error)

    def _check(self, path: str) -> None:
        """Raises Refused unless a request is for this path, by the server's own name, from its own page."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if self.server.hosts is not None and host not in self.server.hosts:
            raise Refused(421, "this server is known by another name")
        if origin is not None and origin != f"http://{host}":
            raise Refused(403, "requests of other pages are refused")
        if self.path != path:
            raise Refused(404, "there is nothing here")

    def _body(self) -> bytes:
        given = self.headers.get("Content-Length", "")
        if not given.isascii() or not given.isdigit() or "Transfer-Encoding" in self.headers:
            raise Refused(411, "the length of the file is missing")
        if len(given) > 12 or int(given) > MOST_BYTES:
            if len(given) < 9:  # a browser reads no answer before it has sent its file
                for start in range(0, int(given), _CHUNK):
                    self.rfile.read(min(_CHUNK, int(given) - start))
            raise Refused(413, f"it is larger than {MOST_BYTES // 2**20} MiB")
        content = self.rfile.read(int(given))
        if len(content) < int(given):
            raise Refused(400, "the file did not arrive whole")
        return content

    def _refuse(self, error: Refused) -> None:
        self.close_connection = True  # what was not read of the request is no further request
        self._send(error.status, "application/json", json.dumps({"error": error.reason}).encode())

    def _send(self, status: int, kind: str, content: bytes, nonce: str = "") -> None:
        self.send_response(status)
        policy = _POLICY.format(nonce=nonce) if nonce else "default-src 'none'"
        named = {"Content-Type": kind, "Content-Length": str(len(content)), "Content-Security-Policy": policy}
        for name, value in {**_HEADERS, **named}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
