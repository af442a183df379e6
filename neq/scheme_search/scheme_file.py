"""What a search writes: the scheme as a file that `--scheme` reads, and beside it all figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from neq import __version__
from neq.budget import amount_shown
from neq.config.writing import flow_value
from neq.runs.layout import SUMMARY
from neq.runs.stored_run import read_object
from neq.scheme_search.search import Search
from neq.scheme_search.short_runs import lists
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError


def check_out(path: Path, asked: Mapping[str, Any], force: bool) -> None:
    """Checks, before the search, that its files can be written and are of no other search.

    Args:
        path: of the scheme file.
        asked: what is searched, of JSON values.
        force: whether files of another search are replaced.

    Raises:
        UserError: they cannot, or are.
    """
    if path.suffix not in (".yaml", ".yml") or path.is_dir():
        raise UserError(f"--out {path} is not allowed: the path of a .yaml file is expected")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: the folder {path.parent} does not exist; make it first")
    about = path.with_suffix(".json")
    there = [each for each in (path, about) if each.exists()]
    is_same = about.exists() and not force and read_object(about).get("asked") == asked
    if there and not is_same and not force:
        raise UserError(f"--out {path}: {there[0]} exists, of another search; --force replaces it")


def write_search(path: Path, found: Search, asked: Mapping[str, Any], command: str) -> None:
    """Writes the scheme and its JSON; the same runs give the same files.

    Args:
        path: of the scheme file.
        found: by the search.
        asked: what was searched, of JSON values.
        command: that trains the scheme.
    """
    costs, choice = found.costs, found.choice
    results = [found.head, *found.parts.values(), *(each.result for each in found.trained if each.result)]
    runs = {run for result in results for run in result.runs}
    last = max((Path(run) / SUMMARY).stat().st_mtime for run in runs) if runs else 0.0
    about = {
        "asked": dict(asked),
        "neq": __version__,
        "date": date.fromtimestamp(last).isoformat(),  # of the last run
        "runs": len(runs),
        "unit": costs.unit,
        "limit": costs.limit,
        "found": asdict(choice),
        "rank_correlation": found.rank_correlation,
        "proxies": found.proxy_correlations,
        "head": asdict(found.head),
        "trained": [asdict(each) for each in found.trained],
        "contributions": [
            {
                "layer": costs.convs[scheme.indices[0]].name if scheme.ratios[0] else None,
                "gain": result.gain(found.head),
                **asdict(scheme),
                **asdict(result),
            }
            for scheme, result in found.parts.items()
        ],
        "scores": {
            name: [
                {"layer": costs.convs[conv].name, "share": share, "score": score}
                for (conv, share), score in scores.items()
            ]
            for name, scores in found.scores.items()
        },
    }
    write_text(path.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
    write_text(path, _scheme_text(path, found, about, command))


def _scheme_text(path: Path, found: Search, about: Mapping[str, Any], command: str) -> str:
    """The scheme with its provenance as comments; its budget is what its lists add up to, in parameters."""
    config, costs, choice = found.costs.config, found.costs, found.choice
    data, net, neq = config.data_provider, config.net_config, config.NEq_config
    used, limit = (amount_shown(amount, costs.unit) for amount in (choice.used, costs.limit))
    own = {"network": net.net_name, "budget": costs.parameters(choice.scheme), **lists(choice.scheme)}
    lines = [
        f"# Found by neq scheme-search, neq {about['neq']}, {about['date']}; all figures: {path.stem}.json.",
        f"# {net.net_name} (weights {net.weights}) on {data.dataset}, {data.image_size} px, batches of "
        f"{data.base_batch_size}, norm mode {neq.norm_mode}, unit {neq.unit}.",
        f"# Method {about['asked']['method']}, {about['runs']} runs, seeds {about['asked']['seeds']}.",
        f"# A step uses {used} of {limit}; {found.worth}.",
        f"# Train it: {command}",
        *(f"{key}: {flow_value(value)}" for key, value in own.items()),
    ]
    return "\n".join(lines) + "\n"
