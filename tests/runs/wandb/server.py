"""A server on the loopback that the unmodified client of W&B takes for its own: runs, in memory.

It answers each GraphQL operation by its name, with every field that the client asks for there.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ENTITY = "somebody"
KEY = "0123456789abcdef0123456789abcdef01234567"


def log_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As somebody who is logged in to W&B, has set nothing else of it, and stands in a folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_API_KEY", KEY)


class Store:
    """What the server was told.

    Args of a run: config (without W&B's own key), history, summary, state, exitcode, display_name.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}  # by "project/id"
        self.keys: set[str] = set()
        self.changed = threading.Condition()

    def wait_for(self, what: Callable[[Store], Any], seconds: float = 60.0) -> None:
        """Waits until something is true of the store."""
        with self.changed:
            assert self.changed.wait_for(lambda: what(self), seconds), self.runs

    def operations(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        """What gives the data of a GraphQL operation from its variables, by the operation's name."""
        return {
            "Viewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "RunResumeStatus": self._resume_status,
            "UpsertBucket": self._upsert,
            "CreateRunFiles": self._files,
            "OrganizationCoreWeaveOrganizationID": lambda values: {"entity": {"organization": None}},
        }

    def stream(self, run: dict[str, Any], body: dict[str, Any]) -> None:
        """A piece of a run: lines of its files, each at its offset, and whether it is over."""
        for name, chunk in (body.get("files") or {}).items():
            lines = (
                [json.loads(line) for line in chunk["content"]] if name.endswith(("jsonl", "json")) else []
            )
            if name == "wandb-summary.json":
                run["summary"] = lines[-1]
            elif name == "wandb-history.jsonl":
                offset = chunk["offset"]
                run["history"][offset : offset + len(lines)] = lines
        if body.get("complete"):
            run["exitcode"] = body["exitcode"]

    def run(self, project: str, name: str) -> dict[str, Any]:
        """A run by its id, begun if it is not there."""
        fresh: dict[str, Any] = {
            "name": name, "project": project, "config": {}, "history": [], "summary": {},
            "exitcode": None, "display_name": None, "sweep": None, "client": {},
        }  # fmt: skip
        return self.runs.setdefault(f"{project}/{name}", fresh)

    def _viewer(self, values: dict[str, Any]) -> dict[str, Any]:
        return {
            "viewer": {
                "id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}",
                "teams": {"edges": []},
            }
        }  # fmt: skip

    def _resume_status(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(f"{values['project']}/{values['name']}")
        entity = {"id": "e", "name": ENTITY}
        return {
            "model": {
                "id": "p", "name": values["project"], "entity": entity, "bucket": run and self._bucket(run)
            }
        }  # fmt: skip

    def _upsert(self, values: dict[str, Any]) -> dict[str, Any]:
        by_id = {self._id(run): run for run in self.runs.values()}
        inserted = values["id"] not in by_id and f"{values['project']}/{values['name']}" not in self.runs
        run = by_id.get(values["id"]) or self.run(values["project"], values["name"])
        run["display_name"] = values["displayName"] or run["display_name"]
        run["sweep"] = values["sweep"] or run["sweep"]
        config = json.loads(values["config"] or "{}")
        run["client"] |= config.pop("_wandb", {"value": {}})["value"]
        run["config"] |= {key: item["value"] for key, item in config.items()}
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _id(self, run: dict[str, Any]) -> str:
        return base64.b64encode(f"{run['project']}/{run['name']}".encode()).decode()

    def _bucket(self, run: dict[str, Any]) -> dict[str, Any]:
        config = json.dumps({key: {"value": value} for key, value in run["config"].items()})
        return {
            "id": self._id(run), "name": run["name"], "displayName": run["display_name"], "description": None,
            "config": config, "sweepName": run["sweep"], "summaryMetrics": json.dumps(run["summary"]),
            "project": {"id": "p", "name": run["project"], "entity": {"id": "e", "name": ENTITY}},
            "historyLineCount": len(run["history"]), "logLineCount": 0, "eventsLineCount": 0,
            "eventsTail": "[]", "historyTail": json.dumps([json.dumps(row) for row in run["history"][-1:]]),
            "tags": [], "notes": None, "wandbConfig": json.dumps(run["client"]),
        }  # fmt: skip

    def _files(self, values: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{values['base']}/storage/{name}"} for name in values["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}


def shown(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a run as in its record."""
    return [{key: value for key, value in row.items() if key[0] != "_"} for row in run["history"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # no connection outlives the server
    store: Store

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if path != "/graphql" and not path.endswith("/file_stream"):
            self._reply({})  # files of the run, telemetry of the client
            return
        with self.store.changed:
            authorization = self.headers.get("Authorization", "").removeprefix("Basic ")
            self.store.keys.add(base64.b64decode(authorization).decode().partition(":")[2])
            if path == "/graphql":
                asked = json.loads(body)
                found = re.search(r"\b(?:query|mutation)\s+(\w+)", asked["query"])
                assert found is not None
                values = (asked.get("variables") or {}) | {"base": f"http://{self.headers['Host']}"}
                self._reply({"data": self.store.operations()[found[1]](values)})
            else:
                _, _, _, project, name, _ = path.split("/")
                self.store.stream(self.store.runs[f"{project}/{name}"], json.loads(body))
                self._reply({"limits": {}})
            self.store.changed.notify_all()

    do_GET = do_PUT = do_POST

    def _reply(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(store: Store, port: int = 0) -> Iterator[str]:
    """The server in a thread; gives its address, and is gone after the block."""
    handler = type("Handler", (_Handler,), {"store": store})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
