"""A loopback server of a folder that supports ranges, and fails on request."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Server:
    """The requests received, and how to answer.

    Attributes:
        asked: path and Range header of each request.
        answers: status codes of the first answers.
        cut_after: bytes of an answer after which the connection breaks, `cuts` times.
        ranges: whether Range headers are followed.
        length: whether Content-Length is sent.
        shift: bytes by which a range starts too late.
    """

    url: str
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    cut_after: int = 0
    cuts: int = 0
    ranges: bool = True
    length: bool = True
    shift: int = 0


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            path = folder / self.path.lstrip("/")
            if state.answers:
                return self._fail(state.answers.pop(0))
            if not path.exists():
                return self._fail(404)
            data = path.read_bytes()
            offset = int(wanted[6:-1]) if wanted and state.ranges else 0
            if offset and offset >= len(data):
                return self._fail(416, f"bytes */{len(data)}")
            offset += state.shift if offset else 0
            self.send_response(206 if offset else 200)
            if offset:
                self.send_header("Content-Range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
            if state.length:
                self.send_header("Content-Length", str(len(data) - offset))
            self.end_headers()
            if state.cuts:
                state.cuts -= 1
                self.wfile.write(data[offset : offset + state.cut_after])
                return
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data[offset:])  # the client may have seen enough

        def _fail(self, code: int, content_range: str | None = None) -> None:
            self.send_response(code)
            if content_range:
                self.send_header("Content-Range", content_range)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
