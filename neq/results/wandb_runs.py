"""The runs of W&B sweeps, as our mirror logged them there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from neq.config.keys import KEYS, SECTIONS
from neq.runs.record_header import UNKNOWN, SweepCell
from neq.runs.run_reader import Run, check_summary, how_far, identity_of
from neq.utils.errors import UserError, first_line, shown

PATH = re.compile(r"[^/\s]+/[^/\s]+/[^/\s]+")
PATIENCE = 60  # seconds that W&B has for an answer


def wandb_runs(sweeps: Iterable[str], api: Any = None, notify: Callable[[str], None] = print) -> list[Run]:
    """The runs of W&B sweeps.

    Args:
        sweeps: each ENTITY/PROJECT/SWEEP.
        api: as wandb.Api; none: the client's own, as it is logged in.
        notify: called with a line for every run that neq did not log.

    Raises:
        UserError: W&B is not installed, or does not give a sweep.
    """
    found = []
    for path in sweeps:
        if not PATH.fullmatch(path):
            raise UserError(f"wandb {shown(path)} is not allowed: give ENTITY/PROJECT/SWEEP")
        try:
            if api is None:
                api = _api()
            runs = list(api.sweep(path).runs)
        except UserError:
            raise
        except Exception as error:  # the client has an error of its own for everything
            raise UserError(f"wandb {shown(path)} cannot be read ({first_line(error)})") from None
        for run in runs:
            try:
                header = replace(UNKNOWN, sweeps=(SweepCell(path, run.id),))
                found.append(replace(_recorded(run), header=header))
            except UserError as error:
                notify(f"{run.url}: {error}; left out")
    return found


def _api() -> Any:
    """The client's own, which would ask for a key on the terminal."""
    from neq.runs import why_no_wandb

    if missing := why_no_wandb():
        raise UserError(missing)
    import wandb

    return wandb.Api(timeout=PATIENCE)


def _recorded(run: Any) -> Run:
    """A run of ours.

    Its configuration has our sections; the values of its sweep stand beside them and are in these already.
    """
    config = _plain(run.config)
    ours = {
        key: value
        for key, value in config.items()
        if key in SECTIONS or (key in KEYS and KEYS[key].section is None)
    }
    if not any(key in SECTIONS for key in ours):
        raise UserError("its configuration is not of neq")
    named = identity_of(ours)
    # The metrics of the last epoch stand beside what the summary says.
    logged = _plain(run.summary_metrics)
    if "best_epoch" not in logged:
        last = logged.get("epochs")
        epochs = last + 1 if isinstance(last, int) and not isinstance(last, bool) else 0
        reason = f"{how_far(named, epochs)} ({run.state} on W&B)"
        return Run(named, "unfinished", reason, epochs=epochs, url=run.url)
    try:
        check_summary(logged, "its summary on W&B")
    except UserError as error:
        return Run(named, "damaged", str(error), url=run.url)
    return Run(named, "done", summary=logged, epochs=logged["epochs"], url=run.url)


def _plain(value: Any) -> Any:
    """The client's own mappings as dicts; W&B writes what is no number as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if value in ("NaN", "Infinity", "-Infinity"):
        return None
    return value
