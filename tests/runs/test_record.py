import json

import pytest
import torch

from neq.networks.neurons import neuron_table
from neq.runs import (
    Environment,
    RecordHeader,
    RunIsBusy,
    RunRecord,
    Stretch,
    SweepCell,
    read_metrics,
)
from neq.runs.record_header import read_header
from neq.training import EpochReport
from neq.utils.errors import UserError
from tests.toys import SHAPE, toy


def report(epoch, **metrics):
    chosen = torch.rand(84, generator=torch.Generator().manual_seed(epoch)) < 0.3
    velocity = torch.linspace(-1, 1, 84, dtype=torch.float64) if epoch else None
    return EpochReport(epoch, {"epochs": epoch, **metrics}, chosen, velocity)


@pytest.fixture
def record(tmp_path):
    record = RunRecord(tmp_path / "run")
    with record.locked():
        record.start("a: 1\n", {"seed": 3}, neuron_table(toy(), SHAPE), ("a", "b"))
    return record


def test_metrics_are_one_line_an_epoch_and_valid_json(record):
    record.epoch(report(0, train={"train/loss": float("nan")}, lr=float("inf")))
    record.epoch(report(1, lr=0.5))
    lines = record.metrics.read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [
        {"epochs": 0, "train": {"train/loss": None}, "lr": None},
        {"epochs": 1, "lr": 0.5},
    ]


def test_rewind_drops_an_epoch_and_later_ones(record):
    for epoch in range(4):
        record.epoch(report(epoch))
    record.rewind(2)
    assert [row["epochs"] for row in read_metrics(record.folder)] == [0, 1]
    record.epoch(report(2))
    assert [row["epochs"] for row in read_metrics(record.folder)] == [0, 1, 2]


def test_resume_drops_later_epochs_and_records_environment_and_cell(record):
    for epoch in range(3):
        record.epoch(report(epoch))
    stretch, cell = Stretch(Environment(threads=3), 2, 4), SweepCell("digits-12ab", 7)
    assert record.resume(stretch, cell) == ""
    assert [row["epochs"] for row in read_metrics(record.folder)] == [0, 1]
    assert read_header(record.folder) == RecordHeader(stretches=(stretch,), sweeps=(cell,))
    later = Stretch(Environment(threads=4), 2, 5)
    assert record.resume(later) == "threads 3 -> 4"
    assert read_header(record.folder) == RecordHeader(stretches=(stretch, later), sweeps=(cell,))


def test_a_cell_that_asks_for_a_finished_run_is_recorded(record):
    record.finish({})
    cell = SweepCell("digits-12ab", 7)
    for _ in range(2):
        record.asked_by(cell)
        assert read_header(record.folder).sweeps == (cell,)
    with record.locked(), pytest.raises(RunIsBusy):
        RunRecord(record.folder).asked_by(SweepCell("other", 1))
    assert record.is_finished()


def test_a_line_that_was_cut_off_is_left_out(record):
    record.epoch(report(0))
    with record.metrics.open("a") as file:
        file.write('{"epochs": 1, "tr')
    assert [row["epochs"] for row in read_metrics(record.folder)] == [0]


def test_the_summary_marks_the_end(record):
    assert not record.is_finished()
    record.finish({"test_top1": 90.0, "val_loss": float("inf")})
    assert record.is_finished()
    assert json.loads(record.summary.read_text()) == {"test_top1": 90.0, "val_loss": None}


def test_start_replaces_a_former_run_and_nothing_else(record):
    record.epoch(report(0))
    record.finish({})
    (record.folder / "notes.txt").write_text("mine")
    record.start("b: 2\n", {"seed": 4}, neuron_table(toy(), SHAPE), ("a", "b"))
    assert not record.is_finished()
    assert read_metrics(record.folder) == []
    assert (record.folder / "notes.txt").read_text() == "mine"
    assert not (record.folder / "selection" / "00000.npz").exists()


@pytest.mark.parametrize(
    ("identity", "resume", "overwrite", "message"),
    [
        ({"seed": 3}, True, False, None),
        ({"seed": 3}, False, True, None),
        ({"seed": 4}, False, True, None),
        ({"seed": 3}, False, False, "--resume continues it"),
        ({"seed": 4}, True, False, "seed is 3 there, 4 here"),
        ({"seed": 3, "lr": 1}, False, False, "lr is its default there, 1 here"),
    ],
)
def test_who_may_use_a_folder(record, identity, resume, overwrite, message):
    if message is None:
        record.check(identity, resume, overwrite)
        return
    with pytest.raises(UserError, match=message):
        record.check(identity, resume, overwrite)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunRecord(tmp_path / "file").check({}, False, False)
    with pytest.raises(UserError, match="cannot be written"), RunRecord(tmp_path / "file" / "run").locked():
        pass


def test_a_checked_folder_is_not_made(tmp_path):
    RunRecord(tmp_path / "new").check({}, False, False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("left", ["checkpoint", "metrics.jsonl", "summary.json"])
def test_what_a_run_left_without_its_identity_is_not_taken_for_this_one(tmp_path, left):
    (tmp_path / left).touch()
    for resume in (False, True):
        with pytest.raises(UserError, match=r"identity.json is missing; put it back, or --overwrite starts"):
            RunRecord(tmp_path).check({"seed": 1}, resume, False)
    RunRecord(tmp_path).check({"seed": 1}, False, True)


@pytest.mark.parametrize("left", [["config.yaml"], ["config.yaml", "selection"], [".config.yaml.7.tmp"]])
def test_a_start_that_was_cut_off_does_not_block_the_folder(tmp_path, left):
    for name in left:
        (tmp_path / name).touch()
    RunRecord(tmp_path).check({"seed": 1}, False, False)


def test_a_damaged_identity_is_named_and_can_be_overwritten(record):
    (record.folder / "identity.json").write_text("{")
    with pytest.raises(UserError, match=r"identity\.json is damaged .*; --overwrite starts the run again"):
        record.check({"seed": 3}, True, False)
    record.check({"seed": 3}, False, True)
