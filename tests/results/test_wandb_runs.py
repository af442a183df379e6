from dataclasses import dataclass, field
from typing import Any

import pytest

from neq.config import to_mapping
from neq.results import wandb_runs as module
from neq.results.frame import frame
from neq.results.grouping import groups
from neq.results.runs_of_sweep import match, read_sweeps
from neq.results.wandb_runs import wandb_runs
from neq.runs import SweepCell
from neq.runs.run_reader import recorded_runs
from neq.utils.errors import UserError
from tests.results.run_folders import configs, summary_of, sweep_file, write_run

URL = "https://wandb.ai/somebody/neq/runs/"


@dataclass
class Run:
    """As wandb.Api gives one."""

    config: dict[str, Any]
    summary_metrics: dict[str, Any]
    state: str = "finished"
    url: str = URL + "a"
    id: str = "a"


@dataclass
class Api:
    """As wandb.Api, of one sweep."""

    runs: list[Run]
    asked: list[str] = field(default_factory=list)

    def sweep(self, path):
        self.asked.append(path)
        if path != "somebody/neq/abc":
            raise ValueError("Could not find sweep\nmore")
        return self


@pytest.fixture
def sweep(tmp_path):
    return sweep_file(tmp_path / "sweep.yaml", "manual_seed: {values: [0, 42, 100]}")


def logged(config):
    """What the mirror logs: sections, the values of the sweep beside them; the last epoch, the summary."""
    shown = {**to_mapping(config), "n_epochs": 3, "net_name": "mcunet-in0"}
    last = {"_step": 2, "valid": {"val/best": 90.0}, "lr": 0.1, "nothing": "NaN"}
    return shown, {**last, **summary_of(config)}


def test_runs_of_a_sweep_are_matched_by_their_configuration(sweep, tmp_path):
    first, second, third = configs(sweep)
    done = Run(*logged(first))
    other = first.model_copy(update={"run_config": first.run_config.model_copy(update={"base_lr": 0.7})})
    running = Run(logged(second)[0], {"epochs": 0, "lr": 0.1}, "running", URL + "b")
    api = Api([done, Run(*logged(other)), running])
    runs = match(read_sweeps([sweep]), wandb_runs(["somebody/neq/abc"], api))
    assert [(run.seed, run.state) for run in runs] == [(0, "done"), (42, "unfinished"), (100, "missing")]
    assert runs[0].summary["test_top1"] == summary_of(first)["test_top1"]
    assert (runs[0].epochs, runs[0].place, runs[0].folder) == (3, URL + "a", None)
    assert runs[1].reason == "unfinished, 1 of 3 epochs (running on W&B)"
    assert len(groups(frame(runs))) == 1
    assert third.manual_seed == 100


def test_a_run_that_is_here_and_there_counts_once(sweep, tmp_path):
    config = configs(sweep)[0]
    folder = write_run(tmp_path / "runs", config)
    recorded = recorded_runs(tmp_path / "runs") + wandb_runs(
        ["somebody/neq/abc"], Api([Run(*logged(config))])
    )
    run = match(read_sweeps([sweep]), recorded)[0]
    assert (run.folder, run.url, run.copies) == (folder, None, (URL + "a",))


def test_a_run_that_is_none_of_ours_or_broken_is_told(sweep):
    config, summary = logged(configs(sweep)[0])
    broken = {**config, "run_config": {"n_epochs": -1}}
    lines = []
    api = Api([Run({"lr": 0.1}, {}), Run(broken, {}), Run(config, {**summary, "test_top1": "much"})])
    (kept,) = wandb_runs(["somebody/neq/abc"], api, lines.append)
    assert (kept.state, kept.reason) == ("damaged", "its summary on W&B is damaged (test_top1 is 'much')")
    assert "its configuration is not of neq; left out" in lines[0]
    assert "n_epochs" in lines[1]


def test_what_is_no_number_on_wandb_is_none(sweep):
    config, summary = logged(configs(sweep)[0])
    (run,) = wandb_runs(["somebody/neq/abc"], Api([Run(config, {**summary, "val_loss": "NaN"})]))
    assert run.state == "done"
    assert run.summary["val_loss"] is None


@pytest.mark.parametrize("path", ["abc", "neq/abc", "a/b/c/d", "", "a b/c/d"])
def test_a_sweep_has_entity_project_and_name(path):
    with pytest.raises(UserError, match="give ENTITY/PROJECT/SWEEP"):
        wandb_runs([path], Api([]))


def test_a_sweep_that_wandb_does_not_give_is_one_line():
    with pytest.raises(UserError, match=r"wandb 'a/b/c' cannot be read \(Could not find sweep\)"):
        wandb_runs(["a/b/c"], Api([]))


def test_who_is_not_logged_in_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(UserError, match="not logged in to W&B"):
        wandb_runs(["a/b/c"])


def test_the_client_is_asked_with_a_bound(monkeypatch, sweep):
    given = {}
    config = configs(sweep)[0]

    def client(**options):
        given.update(options)
        return Api([Run(*logged(config))])

    monkeypatch.setattr("wandb.Api", client)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    assert len(wandb_runs(["somebody/neq/abc"])) == 1
    assert given == {"timeout": module.PATIENCE}


def test_the_runs_of_a_search_on_wandb_are_those_of_the_sweep_given(tmp_path):
    """Its name there says nothing of the file, but the user gives both."""
    grid = sweep_file(tmp_path / "grid.yaml", "manual_seed: {values: [0, 42]}")
    first, second = configs(grid)
    search = sweep_file(tmp_path / "search.yaml", "base_lr: {min: 0.01, max: 0.1}", "random")
    write_run(tmp_path / "runs", second, asked_by=SweepCell("somebody/neq/abc", "b"))
    write_run(tmp_path / "runs", second.model_copy(update={"manual_seed": 7}))
    recorded = recorded_runs(tmp_path / "runs") + wandb_runs(["somebody/neq/abc"], Api([Run(*logged(first))]))
    found = match(read_sweeps([search]), recorded)
    assert [(run.seed, run.place) for run in found] == [(42, str(recorded[0].folder)), (0, URL + "a")]
    assert match(read_sweeps([search]), recorded_runs(tmp_path / "runs")) == []
