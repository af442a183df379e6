"""Best networks evaluated on the test set again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch

from neq.config import Config, dataset, to_mapping
from neq.data import Data, open_data
from neq.results.best_network import load_best
from neq.results.evaluation import opened_task
from neq.results.runs_of_sweep import IMAGES, run_key
from neq.results.verdicts import Check
from neq.runs import load_run
from neq.runs.run_reader import Run, number
from neq.training.evaluation import count
from neq.utils.device import pick_device
from neq.utils.errors import UserError, first_line, printable

Notify = Callable[[str], None]


def evaluate_runs(runs: Iterable[Run], notify: Notify, device: str = "auto") -> dict[str, Check]:
    """Evaluates the best network of every run that is done on the test set; the outcomes by `run_key`.

    Runs on the same images share the opened data; the test split is the same for every seed.

    Args:
        notify: called with a line for every set of images.
    """
    checks: dict[str, Check] = {}
    same_data: defaultdict[str, list[tuple[Run, Config]]] = defaultdict(list)
    for run in runs:
        if run.state != "done":
            continue
        try:
            if run.folder is None:
                raise UserError("its network is not on W&B")
            config = load_run(run.folder).config
        except UserError as error:
            checks[run_key(run)] = _unmeasured(run, error)
            continue
        images = to_mapping(config)["data_provider"]
        same_data[json.dumps([images, run.identity.get(IMAGES)], sort_keys=True)].append((run, config))
    for members in same_data.values():
        checks |= _with_data(members, notify, pick_device(device))
    return checks


def _with_data(
    members: Sequence[tuple[Run, Config]], notify: Notify, device: torch.device
) -> dict[str, Check]:
    """The runs on one set of images."""
    _, config = members[0]
    settings = config.data_provider
    try:
        with open_data(settings, dataset(settings.dataset), config.manual_seed, device) as data:
            count = "network" if len(members) == 1 else "networks"
            notify(
                f"{settings.dataset}: {data.counts['test']} test images, {len(members)} {count} on {device}"
            )
            return {run_key(run): _check(run, config, data, device) for run, config in members}
    except (UserError, OSError) as error:
        return {run_key(run): _unmeasured(run, error) for run, _ in members}


def _check(run: Run, config: Config, data: Data, device: torch.device) -> Check:
    """One network on the test set; an error concerns its run alone."""
    assert run.folder is not None
    assert run.summary is not None
    try:
        best = load_best(run.folder)
        if len(best.classes) != len(data.classes):
            raise UserError(f"it has {len(best.classes)} classes, the data {len(data.classes)}")
        network = best.network.to(device).to(memory_format=torch.channels_last)
        with opened_task(config, data, network, run.identity.get(IMAGES)) as task:
            scores = task.scores(count(network, task, "test", config.run_config.precision))
    except Exception as error:  # a checkpoint may hold anything
        return _unmeasured(run, error)
    there, reason = str(run.summary.get("device")), ""
    if there.partition(":")[0] != device.type:
        reason = f"recorded on {there}, measured on {device.type}"
    return Check(scores["top1"], number(run.summary.get("test_top1")), reason)


def _unmeasured(run: Run, error: Exception) -> Check:
    assert run.summary is not None
    return Check(None, number(run.summary.get("test_top1")), printable(first_line(error)))
