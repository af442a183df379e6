"""A run that goes on under other settings of its steps."""

from pathlib import Path
from typing import Any

import pytest

from neq.config import Config, resolve
from neq.experiment.run import StepSettings, StopEarly, run_training
from neq.runs import load_run
from neq.training import EpochReport
from neq.utils.errors import UserError

SETTINGS = {
    **{"dataset": "digits", "net_name": "mcunet-in0", "image_size": 16, "base_batch_size": 256},
    **{"n_epochs": 3, "warmup_epochs": 0, "base_lr": 0.01, "neuron_selection": "last", "norm_mode": "train"},
    **{"initialization": "last", "budget_unit": "parameters", "budget": 60_000},
}
DECIDED = {"planned": True}


class EndAfter:
    """Ends a run in the step after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.last, self.chosen = epoch, dict[int, int]()

    def step(self, epoch: int, step: int, steps: int) -> None:
        if epoch > self.last:
            raise StopEarly

    def epoch(self, report: EpochReport) -> None:
        self.chosen[report.epoch] = int(report.chosen.sum())

    def finish(self, summary: dict[str, Any]) -> None:
        pass


def config(folder: Path, **more: object) -> Config:
    resume = (folder / "identity.json").exists()
    return resolve({}, {**SETTINGS, **more, "run_dir": str(folder), "resume": resume}).config


@pytest.mark.slow
def test_what_changes_is_chosen_anew_and_recorded(tmp_path: Path) -> None:
    folder, changed = tmp_path / "run", {"budget": 10_000, "micro_batch_size": 64, "ghost_batch_size": 64}
    first, rest = EndAfter(0), EndAfter(9)
    own = StepSettings(config(folder), {}, DECIDED)
    run_training(config(folder), trackers=(first,), under=own)
    smaller = StepSettings(config(folder, **changed), changed, DECIDED)
    for tracker in (EndAfter(0), rest):  # stopped before an epoch is done, and then again
        run_training(config(folder), trackers=(tracker,), under=smaller)
    assert first.chosen[0] > rest.chosen[1] == rest.chosen[2]
    run = load_run(folder)
    assert [(each.epoch, dict(each.settings)) for each in run.header.stretches] == [(0, {}), (1, changed)]
    assert run.is_finished
    assert run.config.NEq_config.budget == 60_000
    assert run.identity["planned"] is True
    # Without what decides over it, it is another run.
    with pytest.raises(UserError, match="holds another run"):
        run_training(config(folder))


@pytest.mark.slow
def test_settings_that_do_not_change_leave_the_run_as_it_is(tmp_path: Path) -> None:
    plain, under = tmp_path / "plain", tmp_path / "under"
    run_training(config(plain))
    run_training(config(under), under=StepSettings(config(under), {}, DECIDED))
    names = ("checkpoint/best.safetensors", "config.yaml", "selection/table.json")
    assert all((plain / name).read_bytes() == (under / name).read_bytes() for name in names)
