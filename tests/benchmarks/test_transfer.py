import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import benchmarks.transfer
from benchmarks.transfer import GRID, Report, main, sweep
from benchmarks.transfer_runs import CELLS, Setting, Task, resolved, train_task
from benchmarks.transfer_table import chosen_rate, paired, tables
from neq.training import TrainingDiverged
from neq.utils.errors import UserError
from tests.benchmarks.pages import ROOT, table_of

TINY = {
    "network": "mcunet-in1",
    "scheme": "mcunet-in1_scheme_1",
    "image_size": 16,
    "batch_size": 8,
    "epochs": 4,
}
FLAGS = [word for key, value in TINY.items() for word in (f"--{key.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images: 3 classes of one colour each, 24 + 4 images a class."""
    root = tmp_path_factory.mktemp("photos")
    stream = np.random.default_rng(0)
    for label, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200)]):
        for split, count in (("train", 24), ("test", 4)):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                noise = stream.integers(-40, 40, (20, 20, 3))
                Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(folder / f"{number}.png")
    return root


def run_of(cell, seed, test, dataset="flowers12", lr=0.05, val=None, outcome="finished", **more):
    figures = {"val_loss": 1.0, "best_epoch": 3, "step_seconds": [0.5, 0.6], "saved_bytes": 2**20, **more}
    return {
        "dataset": dataset, "cell": cell, "base_lr": lr, "seed": seed, "outcome": outcome, "reason": None,
        "val_top1": test if val is None else val, "test_top1": test, **figures,
        "machine": {"cpu": "AMD", "torch": "2.15", "threads": 1, "device": "cpu"},
    }  # fmt: skip


def report_of(path, runs, grid=(0.05, 0.0125)):
    report = Report(path / "t.json")
    report.settle({**TINY, "weights": "default", "grid": list(grid), "grid_seed": 0})
    for run in runs:
        report.add(run)
    return report


@pytest.fixture
def trained(monkeypatch):
    """The tasks that are trained, without training: su is best at the lower rate, full-frozen diverges."""
    tasks = []

    def instead(task):
        tasks.append(task.key)
        outcome = "diverged" if task.cell == "full-frozen" else "finished"
        value = 90.0 + (task.base_lr < 0.03 if task.cell.startswith("su") else task.base_lr > 0.03)
        return run_of(task.cell, task.seed, value, task.setting.dataset, task.base_lr, outcome=outcome)

    monkeypatch.setattr(benchmarks.transfer, "train_task", instead)
    return tasks


def test_the_first_seed_chooses_and_the_others_follow(tmp_path, trained):
    setting = Setting("flowers12", "photos", **TINY)
    path = tmp_path / "t.json"
    sweep(Report(path), setting, ["su-frozen", "full-frozen", "head"], [0, 1], [0.05, 0.0125])
    first = [
        ("flowers12", cell, rate, 0)
        for cell in ("su-frozen", "full-frozen", "head")
        for rate in (0.05, 0.0125)
    ]
    assert trained == [*first, ("flowers12", "su-frozen", 0.0125, 1), ("flowers12", "head", 0.05, 1)]
    before = path.read_bytes()
    # The same call has nothing to do; more seeds and another data set are added.
    sweep(Report(path), setting, ["su-frozen", "full-frozen", "head"], [0, 1], [0.05, 0.0125])
    assert len(trained) == 8
    assert path.read_bytes() == before
    sweep(Report(path), setting, ["head"], [0, 1, 2], [0.05, 0.0125])
    assert trained[8:] == [("flowers12", "head", 0.05, 2)]
    sweep(Report(path), Setting("caltech101", "photos", **TINY), ["head"], [0], [0.05, 0.0125])
    assert len(trained) == 11
    assert len(json.loads(path.read_text())["runs"]) == 11


def test_what_was_done_is_kept_when_a_later_run_fails(tmp_path, trained, monkeypatch):
    good = benchmarks.transfer.train_task

    def fails_at_the_second(task):
        if len(trained) == 1:
            raise UserError("no such image")
        return good(task)

    monkeypatch.setattr(benchmarks.transfer, "train_task", fails_at_the_second)
    setting, path = Setting("flowers12", "photos", **TINY), tmp_path / "t.json"
    with pytest.raises(UserError, match="no such image"):
        sweep(Report(path), setting, ["head"], [0], [0.05, 0.0125])
    assert len(Report(path).runs) == 1
    monkeypatch.setattr(benchmarks.transfer, "train_task", good)
    sweep(Report(path), setting, ["head"], [0], [0.05, 0.0125])
    assert [key[2] for key in trained] == [0.05, 0.0125]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"epochs": 2}, "epochs"),
        ({"scheme": "mcunet-in1_scheme_2"}, "scheme"),
        ({"weights": "none"}, "weights"),
    ],
)
def test_results_of_other_settings_are_not_mixed(change, key, tmp_path, trained):
    path = tmp_path / "t.json"
    sweep(Report(path), Setting("flowers12", "photos", **TINY), ["head"], [0], [0.05])
    with pytest.raises(UserError, match=f"holds runs with {key} .*give another --output"):
        sweep(Report(path), Setting("flowers12", "photos", **{**TINY, **change}), ["head"], [0], [0.05])
    with pytest.raises(UserError, match="holds runs with grid"):
        sweep(Report(path), Setting("flowers12", "photos", **TINY), ["head"], [0], [0.1])
    assert len(trained) == 1


def test_cells_are_what_they_are_called(tmp_path):
    for cell, settings in CELLS.items():
        policy, norm_mode = settings.overrides["neuron_selection"], settings.overrides["norm_mode"]
        config = resolved(Task(Setting("flowers12", "photos"), cell, 0.05, 3, tmp_path / "run")).config
        assert config.NEq_config.norm_mode == norm_mode
        assert (config.run_config.n_epochs, config.run_config.warmup_epochs) == (8, 0)
        assert (config.run_config.momentum, config.run_config.optimizer_name) == (0, "sgd")
        assert (config.data_provider.image_size, config.data_provider.base_batch_size) == (128, 32)
        budget = {"full": 1.0, "head": 0.0}.get(policy, 0.0878233231)
        assert config.NEq_config.ratio == budget
        assert config.NEq_config.neuron_selection == policy
    assert len(CELLS) == 10


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_runs_are_trained_recorded_and_shown(jobs, photos, tmp_path, capsys):
    output = tmp_path / "t.json"
    call = ["--dataset", "flowers12", "--root", str(photos), *FLAGS, "--output", str(output), "--jobs", jobs]
    call += ["--cells", "su-frozen,full-train", "--grid", "0.05", "--seeds", "0"]
    assert main(call) == 0
    runs = {run["cell"]: run for run in json.loads(output.read_text())["runs"]}
    assert set(runs) == {"su-frozen", "full-train"}
    for cell, run in runs.items():
        folder = tmp_path / "t.runs" / "flowers12" / f"{cell}-lr0.05-seed0"
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["test_top1"] == run["test_top1"]
        assert summary["epochs"] == 4
        assert not (folder / "checkpoint").exists()
    assert runs["su-frozen"]["saved_bytes"] < 0.1 * runs["full-train"]["saved_bytes"]
    capsys.readouterr()
    assert main(call) == 0  # nothing is left to do
    assert capsys.readouterr().out == ""
    assert main(["--table", "--output", str(output)]) == 0
    out = capsys.readouterr().out
    full = runs["full-train"]
    if full["outcome"] == "finished":
        assert f"| full-train | 0.05 | {full['test_top1']:.2f} | – | 1.00 |" in out
    else:  # rounding decides whether so few steps learn anything, and rounding depends on the processor
        assert full["reason"] == "never better than guessing among 3 classes"
        assert "| full-train | – | – | – | – | – |" in out
    assert "mcunet-in1 (weights default), 16 px, batch 8, 4 epochs" in out


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(photos, tmp_path, monkeypatch):
    task = Task(Setting("flowers12", str(photos), **TINY), "head", 0.05, 0, tmp_path / "run")
    whole = train_task(Task(task.setting, task.cell, task.base_lr, task.seed, tmp_path / "whole"))

    from neq.runs import RunRecord

    kept = RunRecord.epoch

    def stopped(record, report):
        if report.epoch == 1:
            raise KeyboardInterrupt
        kept(record, report)

    monkeypatch.setattr(RunRecord, "epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_task(task)
    monkeypatch.setattr(RunRecord, "epoch", kept)
    again = train_task(task)
    for key in ("val_top1", "val_loss", "test_top1", "best_epoch"):
        assert again[key] == whole[key]


def test_a_run_that_diverges_is_an_entry(photos, tmp_path, monkeypatch):
    def diverges(*args):
        raise TrainingDiverged("the loss is nan")

    monkeypatch.setattr("neq.experiment.run.train", diverges)
    entry = train_task(Task(Setting("flowers12", str(photos), **TINY), "head", 0.05, 0, tmp_path / "run"))
    assert (entry["outcome"], entry["reason"], entry["test_top1"]) == ("diverged", "the loss is nan", None)
    assert json.loads(json.dumps(entry)) == entry


@pytest.mark.slow
def test_a_run_that_never_beats_guessing_has_diverged(photos, tmp_path):
    setting = Setting("flowers12", str(photos), **TINY)
    entry = train_task(Task(setting, "full-train", 1e-9, 0, tmp_path / "run"))
    assert entry["outcome"] == "diverged"
    assert entry["reason"] == "never better than guessing among 3 classes"
    assert entry["test_top1"] is not None


def test_the_rate_is_the_best_on_validation_of_the_grids_seed():
    runs = [
        run_of("head", 0, 99, lr=0.2, val=80),
        run_of("head", 0, 10, lr=0.05, val=90, val_loss=0.5),
        run_of("head", 0, 10, lr=0.0125, val=90, val_loss=0.4),
        run_of("head", 0, 10, lr=0.4, outcome="diverged"),
        run_of("head", 1, 10, lr=0.2, val=99),
        run_of("head", 0, 10, lr=0.2, val=99, dataset="caltech101"),
    ]
    assert chosen_rate(runs, "flowers12", "head", 0) == 0.0125
    assert chosen_rate(runs, "caltech101", "head", 0) == 0.2
    assert chosen_rate(runs[3:4], "flowers12", "head", 0) is None
    assert chosen_rate(runs, "flowers12", "su-train", 0) is None


def test_the_interval_is_the_paired_t_interval():
    ours, theirs = np.array([94.2, 95.1, 93.0, 90.2]), np.array([95.0, 95.3, 94.6, 90.1])
    mean, width = paired(list(ours - theirs))
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (mean - width, mean + width) == pytest.approx((low, high))
    assert paired([1.5]) == (1.5, None)


def test_the_table_says_what_was_measured(tmp_path):
    runs = [run_of("full-train", seed, test) for seed, test in enumerate([95.0, 96.0, 94.0])]
    runs += [run_of("full-train", 0, 90.0, "caltech101")]
    runs += [
        run_of("su-frozen", seed, test, step_seconds=[0.3, 0.1], saved_bytes=2**18)
        for seed, test in enumerate([94.0, 94.0, 94.0])
    ]
    runs += [run_of("su-frozen", 0, 91.0, "caltech101", step_seconds=[0.2, 0.2], saved_bytes=2**18)]
    none = {"step_seconds": [], "saved_bytes": None, "outcome": "diverged"}
    runs += [run_of("full-frozen", 0, None, lr=lr, **none) for lr in (0.05, 0.0125)]
    runs += [run_of("head", 0, 92.0, lr=0.05), run_of("head", 1, None, lr=0.05, **none)]
    lines = tables(report_of(tmp_path, runs)).splitlines()
    assert lines[2] == "| full-train | 0.05 | 0.05 | 95.00 ± 1.00 | 90.00 | – | 1.00 | 1.0 MiB (1.000) |"
    _, width = paired([-1, -2, 0, 1])
    assert lines[4] == (
        "| su-frozen | 0.05 | 0.05 | 94.00 ± 0.00 | 91.00 "
        f"| -0.50 ± {width:.2f} (n = 4) | 0.20 | 0.2 MiB (0.250) |"
    )
    assert lines[3] == "| full-frozen | – | – | – | – | – | – | – |"
    assert "| 92.00 (1 of 2 diverged) |" in lines[5]
    grid = lines[lines.index("Validation top-1 % by learning rate:") :]
    assert "| full-frozen | diverged | diverged | – | – |" in grid
    assert "| head | **92.00** | – | – | – |" in grid
    assert any("not yet run" in line and "caltech101 full-train seed 1" in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataset", "flowers12"],
        ["--dataset", "mnist", "--root", "."],
        ["--dataset", "flowers12", "--root", ".", "--seeds", "0,0"],
        ["--dataset", "flowers12", "--root", ".", "--seeds", "-1"],
        ["--dataset", "flowers12", "--root", ".", "--grid", "0"],
        ["--dataset", "flowers12", "--root", ".", "--cells", "su"],
        ["--dataset", "flowers12", "--root", ".", "--output", "absent/t.json"],
        ["--dataset", "flowers12", "--root", ".", "--weights", "absent.pth"],
        ["--dataset", "flowers12", "--root", "absent"],
        ["--table", "--output", "text.json"],
    ],
)
def test_bad_arguments_are_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("[]")
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_default_grid_holds_what_decides_full_training():
    assert {0.05, 0.0125} <= set(GRID)


def test_the_page_holds_exactly_what_was_measured():
    assert table_of("docs/transfer.md") == tables(Report(ROOT / "benchmarks/transfer.json"))
