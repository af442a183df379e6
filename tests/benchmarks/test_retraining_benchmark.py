import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import benchmarks.retraining as benchmark
import tests.planning.toy_network  # noqa: F401  (registers toy:NAME)
from benchmarks.retraining import main
from benchmarks.retraining_picture import draw
from benchmarks.retraining_runs import BATCH, METHODS, Cell, Sequence, base_of, plan_of, sequences, within
from benchmarks.retraining_table import tables
from benchmarks.transfer_report import Report
from neq.budget.step_time import StepTime
from neq.config import resolve
from neq.networks.build import build_network
from neq.planning.configurations import NormRule, Space
from tests.benchmarks.pages import ROOT, refusal, table_of

MIB = 2**20


def test_methods_compare_what_they_are_called():
    rules = (NormRule("train"), NormRule("train", 32), NormRule("train", 16))
    every = Space(BATCH, norm_rules=rules)
    found = {}
    for name, method in METHODS.items():
        space = replace(every, **method.compared)
        found[name] = [each for learning in space.learnings for each in space.configurations(learning)]
        assert all(each.memory == "fast" for each in found[name])
        exact = all(each.learning.saved_precision == "exact" for each in found[name])
        assert exact == (name != "all")
    whole = {name for name, all_of in found.items() if {each.micro_batch for each in all_of} == {BATCH}}
    uncut = {name for name, all_of in found.items() if {each.segments for each in all_of} == {1}}
    assert whole == {"full", "layer freezing", "checkpointing", "selection", "TENT"}
    assert uncut == {"full", "layer freezing", "accumulation", "selection", "TENT"}


@pytest.mark.parametrize("name", ["cifar10", "digits"])
def test_every_task_and_method_resolves(name, tmp_path):
    sequence = sequences("photos")[name]
    assert len(sequence.tasks) == {"cifar10": 8, "digits": 2}[name]
    for method in METHODS:
        cell = Cell(name, "photos", method, 2, 3, (0.1,), "weights.pth", tmp_path)
        for task in (sequence.source, *sequence.tasks.values()):
            overrides = cell.settings(task)
            config = resolve(base_of(overrides), overrides).config
            assert config.manual_seed == 2
            assert config.data_provider.split_shares == (0.3, 0.2, 0.5)
            assert config.data_provider.corruption == task.get("corruption")
            assert config.run_config.n_epochs == (1 if method == "TENT" else 3)
            assert config.net_config.weights == "weights.pth"


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Arguments for two corruptions of 450 digits and a toy network; cells run in this process."""
    photos, weights, digits = tmp_path / "digits.npz", tmp_path / "toy.pth", load_digits()
    images = np.round(digits.images[:450] * 15).astype(np.uint8)
    np.savez(photos, x_train=images[:10], y_train=range(10), x_test=images, y_test=digits.target[:450])
    torch.save(build_network("toy:net", 10, seed=3).state_dict(), weights)
    common = {"dataset": f"npz:{photos}", "split_of": "test", "net_name": "toy:net"}
    tasks = {"fog": {"corruption": "fog:2"}, "contrast": {"corruption": "contrast:2"}}
    shifts = {"cifar10": Sequence(common, {}, tasks)}
    monkeypatch.setattr("benchmarks.retraining_runs.sequences", lambda data: shifts)
    monkeypatch.setattr(benchmark, "_alone", lambda call, cell: call(cell))
    monkeypatch.setattr("neq.planning.estimate.kept_step_time", lambda *_: StepTime(1e-3, 1e-10, 1e-10, 0.1))
    output = tmp_path / "toy.json"
    return [
        *("--data", str(photos), "--weights", str(weights), "--output", str(output)),
        *("--seeds", "1", "--epochs", "1", "--rates", "0.1,0.0001"),
    ]


@pytest.mark.slow
def test_cells_are_trained_once_and_recorded(toy, tmp_path, monkeypatch, capsys):
    methods = "source,statistics,full,TENT,checkpointing"
    # All that is above the tensors is more than a toy's limit.
    monkeypatch.setitem(benchmark.LIMITS, "1/2", 0.01)
    arguments = [*toy, "--methods", methods, "--limits", "none,1/2"]
    assert main(arguments) == 0
    runs = {run["method"]: run for run in Report(tmp_path / "toy.json").runs}
    assert list(runs) == methods.split(",")
    for name in ("source", "statistics", "full", "TENT"):
        assert list(runs[name]["after"]) == ["fog", "contrast"]
        assert list(runs[name]["final"]) == ["source", "fog", "contrast"]
    full = runs["full"]
    assert full["after"]["contrast"] == full["final"]["contrast"]
    assert full["base_lr"] == max(full["rates"], key=lambda each: each[1])[0]
    assert full["predicted"] > 0
    assert runs["statistics"]["after"] != runs["source"]["after"]
    assert not runs["checkpointing"]["fits"]
    assert runs["checkpointing"]["least"] > runs["checkpointing"]["limit_bytes"]
    before = (tmp_path / "toy.json").read_bytes()
    monkeypatch.setattr(benchmark, "train_cell", None)
    assert main(arguments) == 0
    assert (tmp_path / "toy.json").read_bytes() == before


def test_a_plan_for_any_limit_holds_the_choice_for_each(toy, tmp_path):
    photos, weights = toy[1], toy[3]
    cell = Cell("cifar10", photos, "accumulation", 0, 1, (0.1,), weights, tmp_path)
    plan = plan_of(cell)
    peaks = sorted(plan.rows[number].peak for number in plan.order)
    for memory in (peaks[0], peaks[-1] - 1, peaks[-1]):
        one = plan_of(cell, memory)
        assert one.chosen.settings == plan.rows[within(plan, memory)].settings
        assert all("checkpoint_cuts" not in row.settings for row in one.rows)
    assert within(plan, peaks[0] - 1) is None


def entry(method, limit, seed, after, end, used, share=None, **settings):
    return {
        **{"sequence": "cifar10", "method": method, "limit": limit, "seed": seed, "fits": True},
        "limit_bytes": None if limit == "none" else 50 * MIB,
        **{"share": share, "settings": settings, "predicted": 2 * used},
        "after": {"fog": after, "snow": after + 2},
        "final": {"source": 80.0, "fog": end - 1, "snow": end + 1},
        **{"base_lr": 0.01, "used": used, "cpu_seconds": 10.0},
        "machine": {"cpu": "a cpu", "torch": "2", "threads": 1, "device": "cpu"},
    }


def row(text, method):
    line = next(line for line in text.splitlines() if line.startswith(f"| {method} |"))
    return [part.strip() for part in line.strip("|").split("|")]


def test_tables_are_means_over_tasks_and_seeds(tmp_path):
    untrained = {"after": {"fog": 50, "snow": 60}, "final": {"source": 90.0, "fog": 50, "snow": 60}}
    runs = [
        {"sequence": "cifar10", "method": "source", "limit": "none", "seed": 0, **untrained},
        entry("full", "none", 0, 70.0, 60.0, 100 * MIB),
        entry("full", "none", 1, 72.0, 64.0, 90 * MIB),
        entry("all", "1/2", 0, 71.0, 61.0, 25 * MIB, 0.5, micro_batch_size=32, checkpoint_cuts=["a", "b"]),
        {
            **{"sequence": "cifar10", "method": "checkpointing", "limit": "1/2", "seed": 0, "fits": False},
            **{"limit_bytes": 50 * MIB, "least": 55 * MIB},
        },
    ]
    path = tmp_path / "report.json"
    settings = {"network": "resnet20", "batch_size": 128, "epochs": 3, "rates": [0.01]}
    path.write_text(json.dumps({"settings": settings, "runs": runs}))
    text = tables(Report(path))
    assert row(text, "source")[4:7] == ["55.0", "55.0", "90.0"]
    spread = ["72.0 ± 1.4", "62.0 ± 2.8", "80.0 ± 0.0"]
    assert row(text, "full") == [
        *("full", "–", "everything", "all, 1", *spread),
        *("200.0", "100.0", "1.0", "10"),
    ]
    assert row(text, "all") == [
        *("all", "50.0 (1/2)", "50% of the work", "32, 3", "72.0", "61.0", "80.0"),
        *("50.0", "25.0", "4.0", "10"),
    ]
    assert row(text, "checkpointing")[1:3] == ["50.0 (1/2)", "does not fit: its least is 55.0"]
    assert row(text, "all, 1/2") == ["all, 1/2", "71.0", "73.0"]
    assert "full 0.01; all, 1/2 0.01." in text
    left, right = draw(Report(path), "cifar10").axes
    lines = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert lines == {"source": [50, 60], "full": [71, 73], "all, 1/2": [71, 73]}
    assert [list(points.get_offsets()[0]) for points in right.collections] == [[100, 72], [25, 72]]
    assert right.lines[0].get_xdata()[0] == 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "photos", "--weights", "w", "--methods", "everything"], "everything"),
        (["--data", "photos", "--weights", "w", "--limits", "1/3"], "1/3"),
        (["--data", "photos", "--weights", "w", "--rates", "fast"], "--rates 'fast' are no numbers"),
        (["--data", "photos"], "--weights is missing"),
        ([], "--data is missing"),
        (["--data", "photos", "--output", "no/such/folder.json"], "no place for a file"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, said):
    assert said in refusal(main, arguments, capsys)


def test_the_page_holds_exactly_what_was_measured():
    assert table_of("docs/retraining.md") == tables(Report(ROOT / "benchmarks/retraining.json"))
