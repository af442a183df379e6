"""The record of a sequence."""

import json
from pathlib import Path

import pytest

import tests.planning.toy_network  # noqa: F401  (registers toy:NAME)
from neq.planning.sequence import TaskSequence, read_sequence
from neq.planning.sequence_record import RECORD, TABLE, SequenceRecord, StageResult, open_record
from neq.utils.errors import UserError

TEXT = 'common: {dataset: digits, net_name: "toy:net", ratio: .5}\ntasks: [{corruption: fog:1}]\n'


@pytest.fixture
def sequence(tmp_path: Path) -> TaskSequence:
    (tmp_path / "shift.yaml").write_text(TEXT)
    return read_sequence(tmp_path / "shift.yaml")


def record(sequence: TaskSequence, folder: Path) -> SequenceRecord:
    """A record with results, written."""
    folder.mkdir()
    found = open_record(sequence, folder)
    found.source |= {"source": 90.0, "fog-1": 40.125}
    found.statistics |= {"source": 85.0, "fog-1": 70.0}
    found.stages += [
        StageResult("00_source", "source", "classification", {"source": 90.0}),
        StageResult(
            "01_fog-1", "fog-1", "tent", {"source": 88.0, "fog-1": 75.5}, 72.25, {"file": "a", "bytes": 7}
        ),
    ]
    found.write()
    return found


def test_a_record_is_read_as_it_was_written(sequence: TaskSequence, tmp_path: Path) -> None:
    written = record(sequence, tmp_path / "out")
    assert open_record(sequence, tmp_path / "out") == written
    assert (tmp_path / "out" / TABLE).read_text() == (
        "network,source,fog-1\nsource,90.00,40.12\nstatistics alone,85.00,70.00\nafter 01_fog-1,88.00,75.50\n"
    )


def test_a_start_that_was_cut_off_is_no_foreign_folder(sequence: TaskSequence, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".lock", ".sequence.json.12.tmp", TABLE):
        (out / name).touch()
    assert open_record(sequence, out).stages == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "in a format that this version of neq does not read"),
        ('{"format": 2}', "in a format that this version of neq does not read"),
        ('{"format": 1}', "is damaged (plan)"),
        ('{"format": 1, "plan": [3]}', "is damaged (plan.0)"),
        ('{"format": 1, "plan": [], "stages": [{"name": "a"}]}', "is damaged (stages.0.task)"),
    ],
)
def test_a_damaged_record(text: str, said: str, sequence: TaskSequence, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text(text)
    with pytest.raises(UserError) as caught:
        open_record(sequence, tmp_path / "out")
    assert said in str(caught.value)
    assert (tmp_path / "out" / RECORD).read_text() == text


def test_a_task_that_has_not_begun_may_change(sequence: TaskSequence, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = record(sequence, out)
    found.stages.pop()
    found.write()
    (tmp_path / "shift.yaml").write_text(TEXT.replace("fog:1", "fog:2"))
    other = read_sequence(tmp_path / "shift.yaml")
    assert open_record(other, out).plan[1]["corruption"] == "fog:2"
    (out / "01_fog-1").mkdir()
    with pytest.raises(UserError, match="01_fog-1 is not in its place in this file"):
        open_record(other, out)
    assert json.loads((out / RECORD).read_text())["plan"][1]["corruption"] == "fog:1"
