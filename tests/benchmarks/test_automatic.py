import json

import pytest

from benchmarks.automatic import CELLS, RECIPES, SETS, main
from benchmarks.automatic_table import tables
from benchmarks.transfer_report import Report
from benchmarks.transfer_runs import Setting, Task, resolved
from tests.benchmarks.pages import ROOT, refusal, table_of

MACHINE = {"cpu": "a cpu", "torch": "2", "threads": 1, "device": "cpu"}


def run(dataset, cell, seed, test_top1, base_lr="auto", val_top1=90.0):
    return {
        "dataset": dataset,
        "cell": cell,
        "base_lr": base_lr,
        "seed": seed,
        "outcome": "finished",
        "reason": None,
        "val_top1": val_top1,
        "val_loss": 0.5,
        "test_top1": test_top1,
        "best_epoch": 3,
        "saved_bytes": 2**20,
        "step_seconds": [1.0],
        "machine": MACHINE,
    }


def report(tmp_path, runs):
    settings = {"network": "mbv2", "image_size": 128, "batch_size": 32, "epochs": 8, "grid_seed": 0}
    path = tmp_path / "automatic.json"
    path.write_text(json.dumps({"settings": settings, "runs": runs}))
    return Report(path)


def row(text, cell):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {cell} |")]
    return [part.strip() for part in line.strip("|").split("|")]


def test_cells_are_what_they_are_called(tmp_path):
    for name, cell in CELLS.items():
        setting = Setting("flowers12", "photos", cells=CELLS)
        rate = 0.05 if cell.grid is None else cell.grid[0]
        config = resolved(Task(setting, name, rate, 0, tmp_path / "run")).config
        neq = config.NEq_config
        assert config.run_config.base_lr == rate
        assert neq.norm_mode == ("train" if name == "full-train" else "frozen")
        if ", " in name:
            policy, limit = name.split(", ")
            assert neq.budget == {"5MiB": 5, "2MiB": 2}[limit] * 2**20
            assert neq.budget_unit == "bytes"
            assert policy.split()[0] == neq.neuron_selection
            if policy.startswith("auto"):
                assert neq.importance == policy.split()[1]
                assert neq.cost_aware
    assert len(CELLS) == 24
    usual = resolved(
        Task(Setting("flowers12", "p", cells=CELLS), "auto gradient_norm, 5MiB", "auto", 0, tmp_path)
    )
    for name in RECIPES:
        changed = resolved(Task(Setting("flowers12", "photos", cells=RECIPES), name, "auto", 0, tmp_path))
        assert changed.config != usual.config
    assert len(SETS) == 6


def test_differences_are_to_the_norm_mode_of_full_that_is_better_on_validation(tmp_path):
    runs = []
    for seed in (0, 1):
        runs += [
            run("flowers12", "full-train", seed, 80.0, 0.05, val_top1=91.0),
            run("flowers12", "full-frozen", seed, 99.0, 0.05, val_top1=90.0),
            run("flowers12", "SU 1", seed, 81.0, 0.05),
            run("flowers12", "auto fisher, 5MiB", seed, 83.0 + 2 * seed),
        ]
    runs.append(run("flowers12", "full-train", 0, 10.0, 0.0125, val_top1=20.0))
    text = tables(report(tmp_path, runs))
    # Differences 3 and 5 to full-train, and 2 and 4 to SU: mean, and t(.975, 1) * sqrt(2) / sqrt(2).
    assert row(text, "auto fisher, 5MiB") == [
        "auto fisher, 5MiB",
        "84.00 ± 1.41",
        "+4.00 ± 12.71 (n = 2)",
        "+3.00 ± 12.71 (n = 2)",
        "1.00",
    ]
    assert row(text, "full-frozen")[2].startswith("+19.00")
    assert "full-train 0.05* on flowers12; full-frozen" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "photos", "--sets", "nothing"], "nothing"),
        (["--data", "photos", "--cells", "SU 2"], "SU 2"),
        ([], "--data is missing"),
        (["--data", "photos", "--seeds", "0"], "0"),
        (["--data", "photos", "--output", "no/such/folder.json"], "no place for a file"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, said):
    assert said in refusal(main, arguments, capsys)


def test_the_page_holds_exactly_what_was_measured():
    assert table_of("docs/automatic_selection.md") == tables(Report(ROOT / "benchmarks/automatic.json"))
