"""Sweeps for the server on the loopback: a grid whose cells are handed to agents, one at a time to each."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from ruamel.yaml import YAML

from tests.runs.wandb.server import ENTITY, Store


class SweepStore(Store):
    """Runs and sweeps. A cell is handed out once, as W&B does it, unless its run is deleted.

    Args of a sweep: project, config (YAML), agents (how many there were).
    Args of a run in a sweep, besides those of any: args (as its agent gets them).
    """

    def __init__(self) -> None:
        super().__init__()
        self.sweeps: dict[str, dict[str, Any]] = {}  # by id
        self._handed = 0  # cells, those of deleted runs too

    def operations(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {
            **super().operations(),
            "UpsertSweep": self._upsert_sweep,
            "CreateAgent": self._agent,
            "Heartbeat": self._heartbeat,
            "SweepWithRuns": lambda values: self._in_project({"sweep": self._sweep(values["sweep"])}),
            "GetSweep": lambda values: self._in_project({"sweep": self._sweep(values["name"])}),
            "Runs": self._sorted_runs,
        }

    def cells(self, sweep: str) -> list[dict[str, Any]]:
        """The runs of a sweep, in the order in which they were handed out."""
        return [run for run in self.runs.values() if run["sweep"] == sweep]

    def delete(self, run: dict[str, Any]) -> None:
        """As on the page of a run: the sweep hands its cell out again, as a new run."""
        with self.changed:
            del self.runs[f"{run['project']}/{run['name']}"]

    def _upsert_sweep(self, values: dict[str, Any]) -> dict[str, Any]:
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = {"project": values["projectName"], "config": values["config"], "agents": 0}
        project = {"id": "p", "name": values["projectName"], "entity": {"id": "e", "name": ENTITY}}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def _agent(self, values: dict[str, Any]) -> dict[str, Any]:
        self.sweeps[values["sweep"]]["agents"] += 1
        return {
            "createAgent": {"agent": {"id": f"{values['sweep']}/{self.sweeps[values['sweep']]['agents']}"}}
        }

    def _heartbeat(self, values: dict[str, Any]) -> dict[str, Any]:
        """Nothing to do for an agent that is busy, else its next cell or its end."""
        sweep, _, _ = values["id"].partition("/")
        commands = [] if json.loads(values["runState"]) else [self._next(sweep)]
        return {"agentHeartbeat": {"agent": {"id": values["id"]}, "commands": json.dumps(commands)}}

    def _next(self, sweep: str) -> dict[str, Any]:
        project, config = self.sweeps[sweep]["project"], YAML(typ="safe").load(self.sweeps[sweep]["config"])
        begun = [run["args"] for run in self.cells(sweep)]
        cell = next((cell for cell in _grid(config["parameters"]) if cell not in begun), None)
        if cell is None:
            return {"type": "exit"}
        self._handed += 1
        run = self.run(project, f"cell{self._handed}")
        run |= {"sweep": sweep, "args": cell, "config": dict(cell)}
        args = {key: {"value": value} for key, value in cell.items()}
        return {"type": "run", "run_id": run["name"], "program": config["program"], "args": args}

    def _sweep(self, name: str) -> dict[str, Any]:
        text = self.sweeps[name]["config"]
        config = YAML(typ="safe").load(text)
        nothing = dict.fromkeys(("displayName", "description", "bestLoss", "controller", "scheduler"))
        return {
            **nothing, "id": base64.b64encode(name.encode()).decode(), "name": name,
            "method": config["method"], "state": "RUNNING", "config": text, "createdAt": _TIME,
            "updatedAt": _TIME, "heartbeatAt": _TIME, "earlyStopJobRunning": False,
            "runCount": len(self.cells(name)),
            "runCountExpected": len(list(_grid(config["parameters"]))), "runs": {"edges": []},
        }  # fmt: skip

    def _sorted_runs(self, values: dict[str, Any]) -> dict[str, Any]:
        """The runs of a sweep by a metric of their summary, those without it last."""
        (only,) = json.loads(values["filters"])["$and"]
        sign, metric = values["order"][0], values["order"][1:].removeprefix("summary_metrics.")

        def key(run: dict[str, Any]) -> float:
            value: Any = run["summary"]
            for part in metric.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            return math.inf if value is None else -value if sign == "-" else value

        runs = sorted(self.cells(only["sweep"]), key=key)[: values["perPage"]]
        edges = [{"node": self._shown(run), "cursor": run["name"]} for run in runs]
        return self._in_project(
            {"runCount": len(edges), "runs": {"edges": edges, "pageInfo": {"hasNextPage": False}}}
        )

    def _shown(self, run: dict[str, Any]) -> dict[str, Any]:
        bucket = self._bucket(run)
        return {
            **bucket, "projectId": "1", "state": "running" if run["exitcode"] is None else "finished",
            "group": None, "jobType": None, "commit": None, "readOnly": False, "createdAt": _TIME,
            "heartbeatAt": _TIME, "systemMetrics": "{}", "user": {"name": ENTITY, "username": ENTITY},
            "historyKeys": None,
        }  # fmt: skip

    def _in_project(self, content: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"internalId": "1", "readOnly": False, **content}}


_TIME = "2026-01-01T00:00:00Z"


def _grid(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells of lists and constants; a nested `parameters` is a value by name."""
    choices = [
        list(_grid(spec["parameters"])) if "parameters" in spec else spec.get("values", [spec.get("value")])
        for spec in parameters.values()
    ]
    for values in itertools.product(*choices):
        yield dict(zip(parameters, values, strict=True))
