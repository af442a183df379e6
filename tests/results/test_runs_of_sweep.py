import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neq.config import resolve
from neq.results import collect, groups
from neq.results.frame import frame
from neq.runs import RunRecord, SweepCell, identity
from neq.runs.run_reader import recorded_runs
from neq.sweeps import read_sweep
from neq.sweeps.queue import sweep_name
from neq.utils.errors import UserError
from tests.results.run_folders import configs, summary_of, sweep_file, write_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sweep(tmp_path):
    return sweep_file(tmp_path / "sweep.yaml")


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def states(found):
    return [run.state for run in found]


def test_every_cell_is_a_run_or_missing(sweep, runs):
    wanted = configs(sweep)
    folder = write_run(runs, wanted[0])
    found = collect([sweep], runs)
    assert states(found) == ["done"] + ["missing"] * 11
    assert [run.seed for run in found] == [config.manual_seed for config in wanted]
    first = found[0]
    assert first.folder == folder
    assert first.summary == summary_of(wanted[0])
    assert first.epochs == 3
    assert first.reason == ""
    assert first.identity == json.loads(json.dumps(identity(wanted[0])))
    assert first.config["base_batch_size"] == 32  # a default, which identity.json leaves out
    assert first.config["manual_seed"] == 0
    assert "root" not in first.config
    assert found[1].folder is None
    assert found[1].summary is None
    assert found[1].reason == "no run"


def test_runs_are_found_by_what_they_recorded_not_by_their_folder(sweep, runs):
    config = configs(sweep)[4]
    folder = write_run(runs, config, folder="my favourite/run")
    found = collect([sweep], runs)
    assert found[4].folder == folder
    assert states(found).count("done") == 1


def test_a_run_with_another_setting_does_not_belong(sweep, runs):
    config = configs(sweep)[0]
    other = config.model_copy(update={"run_config": config.run_config.model_copy(update={"base_lr": 0.2})})
    write_run(runs, other)
    # In the folder of a cell, though it is not that cell.
    write_run(runs, other, folder=str(write_run(runs, configs(sweep)[1]).relative_to(runs)) + "x")
    assert states(collect([sweep], runs)).count("done") == 1


def test_overlapping_files_give_each_run_once(sweep, runs, tmp_path):
    for config in configs(sweep):
        write_run(runs, config)
    more = sweep_file(tmp_path / "more.yaml", "ratio: {values: [.3, .5]}\n  manual_seed: {values: [0, 7]}")
    found = collect([sweep, more, sweep], runs)
    # .3 with seed 0 is a cell of both: velocity is what a run has where nothing is said.
    assert len(found) == 12 + 3
    assert states(found) == ["done"] * 12 + ["missing"] * 3


def test_a_run_that_lies_twice_counts_once_and_says_so(sweep, runs):
    config = configs(sweep)[0]
    write_run(runs, config, stopped_after=2, folder="a/cut off")
    done = write_run(runs, config, folder="b/done")
    run = collect([sweep], runs)[0]
    assert (run.state, run.folder) == ("done", done)
    assert run.copies == (str(runs / "a/cut off"),)


def test_an_unfinished_run_says_how_far_it_is(sweep, runs):
    write_run(runs, configs(sweep)[0], stopped_after=2)
    run = collect([sweep], runs)[0]
    assert (run.state, run.epochs, run.reason) == ("unfinished", 2, "unfinished, 2 of 3 epochs")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("summary.json", "", "summary.json is damaged"),
        ("summary.json", '{"epochs": 3', "summary.json is damaged"),
        ("summary.json", "[]", "summary.json is damaged (it holds [])"),
        ("summary.json", "\x00\xff", "summary.json is damaged"),
        ("summary.json", '{"epochs": 3, "best_epoch": 1}', "test_top1 is missing"),
        ("identity.json", "{", "identity.json is damaged"),
        ("identity.json", '"text"', "identity.json is damaged"),
    ],
)
def test_a_damaged_run_is_a_row_with_its_reason(sweep, runs, name, content, reason):
    folder = write_run(runs, configs(sweep)[0])
    (folder / name).write_text(content, encoding="latin-1")
    found = collect([sweep], runs)
    assert states(found) == ["damaged"] + ["missing"] * 11
    assert reason in found[0].reason
    assert "\n" not in found[0].reason
    assert found[0].folder == folder
    assert found[0].summary is None


@pytest.mark.parametrize(
    "changed", [{"test_top1": "=1+1"}, {"epochs": 2.5}, {"best_epoch": None}, {"step_seconds": True}]
)
def test_a_summary_that_cannot_be_counted_with_is_damaged(sweep, runs, changed):
    write_run(runs, configs(sweep)[0], **changed)
    run = collect([sweep], runs)[0]
    assert run.state == "damaged"
    assert next(iter(changed)) in run.reason


def test_a_cell_whose_record_is_gone_altogether_is_damaged(sweep, runs):
    folder = write_run(runs, configs(sweep)[0])
    (folder / "identity.json").unlink()
    (folder / "config.yaml").write_text("a: [")
    found = collect([sweep], runs)
    assert states(found) == ["damaged"] + ["missing"] * 11
    assert found[0].folder == folder


def test_a_folder_that_may_not_be_read_is_damaged(sweep, runs, monkeypatch):
    folder = write_run(runs, configs(sweep)[0])
    real, read = os.scandir, Path.read_bytes

    def refuse(path, otherwise):
        if folder in (Path(path), *Path(path).parents):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return otherwise(path)

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path, real))  # root may read everything
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path, read))
    (run,) = recorded_runs(runs)
    assert (run.state, run.folder) == ("damaged", folder)
    assert run.reason == "identity.json cannot be read (Permission denied)"


def test_folders_that_are_no_runs_are_passed_over(sweep, runs):
    (runs / "notes").mkdir()
    (runs / "notes/summary.json").write_text("{}")
    (runs / "loop").symlink_to(runs)
    write_run(runs, configs(sweep)[0])
    assert states(collect([sweep], runs)).count("done") == 1
    assert states(collect([sweep], runs / "nowhere")) == ["missing"] * 12


def test_runs_on_another_disk_are_found_through_a_link(sweep, runs, tmp_path):
    write_run(tmp_path / "elsewhere", configs(sweep)[0])
    (runs / "digits").symlink_to(tmp_path / "elsewhere/digits")
    assert states(collect([sweep], runs)).count("done") == 1


def test_a_file_is_no_folder_of_runs(sweep, tmp_path):
    with pytest.raises(UserError, match=r"runs_dir .* is a file"):
        collect([sweep], sweep)


def test_a_wrong_sweep_file_is_named(tmp_path, runs):
    wrong = sweep_file(tmp_path / "wrong.yaml", "ratio: {values: [-1]}")
    with pytest.raises(UserError, match=r"wrong.yaml.*ratio -1"):
        collect([wrong], runs)


SEARCH = """base_lr: {distribution: log_uniform_values, min: 0.003, max: 0.3}
  momentum: {values: [0, .9]}
  ratio: {min: .05, max: .5}
  image_size: {value: 32}"""


def name_of(file):
    """The name under which `neq sweep` runs a file."""
    sweep = read_sweep(file)
    return sweep_name(sweep, file.stem, sweep.experiment().settings)


def searched(**changed):
    values = {"n_epochs": 3, "warmup_epochs": 0, "base_lr": 0.01, "momentum": 0.9, "ratio": 0.2,
              "image_size": 32, "base_batch_size": 32, "validation_percentage": 0.2}  # fmt: skip
    return resolve({}, {**values, **changed}).config


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_the_runs_of_a_search_are_those_that_recorded_its_name(tmp_path, runs, method):
    more = SEARCH + "\nmetric: {name: valid.val/best, goal: maximize}"
    file = sweep_file(tmp_path / "search.yaml", more, method)
    name = name_of(file)
    assert name.startswith("search-")
    write_run(runs, searched(), folder="00", asked_by=SweepCell(name, 1))
    write_run(runs, searched(base_lr=0.3), folder="01", asked_by=SweepCell(name, 2), stopped_after=2)
    write_run(runs, searched(ratio=0.05), folder="02", asked_by=SweepCell("search-00000000", 1))
    write_run(runs, searched(momentum=0), folder="03")  # by hand, or by a version that did not record it
    found = collect([file], runs)
    assert [(run.folder.name, run.state) for run in found] == [("00", "done"), ("01", "unfinished")]
    assert list(groups(frame(found))["seeds_expected"]) == [1] * 2


@pytest.mark.parametrize(
    "damage",
    [
        {"manual_seed": "x"}, {"manual_seed": None}, {"ratio": []}, {"net_name": 3}, {"unknown": 1},
        {"dataset": {}}, {"n_epochs": -1}, {"net_name": None},
    ],
)  # fmt: skip
def test_a_run_of_a_search_with_a_damaged_identity_is_left_out(tmp_path, runs, damage):
    file = sweep_file(tmp_path / "search.yaml", SEARCH, "random")
    folder = write_run(runs, searched(), asked_by=SweepCell(name_of(file), 1))
    named = json.loads((folder / "identity.json").read_text())
    (folder / "identity.json").write_text(json.dumps({**named, **damage}))
    assert collect([file], runs) == []


def test_a_search_without_runs_has_none(tmp_path, runs):
    assert collect([sweep_file(tmp_path / "search.yaml", SEARCH, "random")], runs) == []


def test_an_edited_search_is_another_one(tmp_path, runs):
    file = sweep_file(tmp_path / "search.yaml", SEARCH, "random")
    write_run(runs, searched(), asked_by=SweepCell(name_of(file), 1))
    assert len(collect([file], runs)) == 1
    sweep_file(file, SEARCH.replace("0.3}", "0.4}"), "random")
    assert collect([file], runs) == []


def test_a_run_that_two_searches_drew_counts_to_both_and_once(tmp_path, runs):
    files = [sweep_file(tmp_path / f"{name}.yaml", SEARCH, "random") for name in "ab"]
    folder = write_run(runs, searched(), asked_by=SweepCell(name_of(files[0]), 1))
    RunRecord(folder).asked_by(SweepCell(name_of(files[1]), 4))
    for given in (files[:1], files[1:], files):
        assert states(collect(given, runs)) == ["done"]


def test_a_copy_of_a_run_counts_with_the_one_that_the_search_drew(tmp_path, runs):
    file = sweep_file(tmp_path / "search.yaml", SEARCH, "random")
    write_run(runs, searched(), folder="a")
    write_run(runs, searched(), folder="b", asked_by=SweepCell(name_of(file), 1), stopped_after=1)
    (run,) = collect([file], runs)
    assert (run.folder.name, run.state, run.copies) == ("a", "done", (str(runs / "b"),))


def test_images_in_files_are_part_of_a_run_and_a_missing_seed_counts_to_them(tmp_path, runs):
    folder = tmp_path / "photos"
    more = (
        f"dataset: {{value: image_folder}}\n  root: {{value: {folder}}}\n  manual_seed: {{values: [0, 1, 2]}}"
    )
    file = sweep_file(tmp_path / "sweep.yaml")
    file.write_text(file.read_text().partition("  dataset")[0] + "  " + more + "\n")
    for config in configs(file)[:2]:
        write_run(runs, config, images="abc")
    (one,) = groups(frame(collect([file], runs))).to_dict("records")
    assert (one["seeds_done"], one["seeds_expected"]) == (2, 3)
    assert one["data_fingerprint"] == "abc"
    write_run(runs, configs(file)[0], images="def")  # another copy of the images, which is another run
    found = groups(frame(collect([file], runs)))
    seeds = zip(found["seeds_done"], found["seeds_expected"], strict=True)
    assert sorted(seeds) == [(0, 1), (1, 1), (2, 2)]


def test_config_file_is_what_cells_start_from_unless_they_say_it(sweep, runs, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("run_config: {base_lr: .2}\n")
    assert {run.config["base_lr"] for run in collect([sweep], runs)} == {0.05}
    assert {run.config["base_lr"] for run in collect([sweep], runs, str(mine))} == {0.2}
    published = ROOT / "policies/c10/mbv2.yaml"
    assert {run.config["base_lr"] for run in collect([published], runs, str(mine))} == {0.025}


@pytest.mark.slow
def test_five_thousand_runs_are_collected_in_under_ten_seconds(tmp_path, runs):
    more = """ratio: {min: 1, max: 500}
  neuron_selection: {values: [velocity, random]}
  manual_seed: {values: [0, 1, 2, 3, 4]}"""
    file = sweep_file(tmp_path / "sweep.yaml", more)
    for config in configs(file):
        write_run(runs, config)
    start = time.process_time()  # of this process alone: the machine may be busy with others
    found = collect([file], runs)
    seconds = time.process_time() - start
    assert states(found) == ["done"] * 5000
    assert len(groups(frame(found))) == 1000
    assert seconds < 10


def test_neither_torch_nor_pandas_is_imported_to_collect():
    code = "import sys, neq.results; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ}, check=False)
    assert done.returncode == 0
