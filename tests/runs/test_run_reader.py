import json
import math

import pytest

from neq.runs.run_reader import check_summary, how_far, number, recorded_runs
from neq.utils.errors import UserError

SUMMARY = {"epochs": 2, "best_epoch": 1, "test_top1": 90.0, "val_loss": None}


def put(folder, summary=None, rows=0, identity=None):
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text(json.dumps(identity or {"n_epochs": 2, "warmup_epochs": 1}))
    (folder / "metrics.jsonl").write_text('{"epochs": 0}\n' * rows + '{"epo')
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))


def test_runs_are_listed_by_path_with_their_states(tmp_path):
    put(tmp_path / "b" / "done", SUMMARY, 2)
    put(tmp_path / "a", None, 1)
    put(tmp_path / "c", {"epochs": 2})
    found = recorded_runs(tmp_path)
    assert [(one.folder.name, one.state, one.epochs) for one in found] == [
        ("a", "unfinished", 1),
        ("done", "done", 2),
        ("c", "damaged", 0),
    ]
    assert found[0].reason == "unfinished, 1 of 3 epochs"
    assert found[1].summary == SUMMARY
    assert found[2].reason == "summary.json is damaged (best_epoch is missing)"
    assert found[0].place == str(tmp_path / "a")


def test_a_folder_that_is_not_there_holds_no_runs(tmp_path):
    assert recorded_runs(tmp_path / "gone") == []


def test_a_damaged_record_of_one_run_leaves_the_others(tmp_path):
    put(tmp_path / "a", SUMMARY)
    (tmp_path / "a" / "record.json").write_text("{")
    put(tmp_path / "b", SUMMARY)
    first, second = recorded_runs(tmp_path)
    assert (first.state, second.state) == ("damaged", "done")
    assert "record.json is damaged" in first.reason


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": "2"}, {"epochs": 2.5}, {"best_epoch": None}, {"test_top1": True}, {"val_loss": "low"},
        {"test_top1": 1e301},
    ],
)  # fmt: skip
def test_a_summary_that_cannot_be_computed_with_is_named(changed):
    (name,) = changed
    with pytest.raises(UserError, match=rf"its summary is damaged \({name} is "):
        check_summary({**SUMMARY, **changed}, "its summary")
    check_summary(SUMMARY, "its summary")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), (2.5, 2.5), (None, None), (True, None), ("3", None), (math.inf, None), (1e301, None)],
)
def test_what_counts_as_a_number(value, expected):
    assert number(value) == expected


def test_nan_is_no_number():
    assert number(math.nan) is None


def test_the_epochs_of_a_run_whose_identity_is_odd_are_unknown():
    assert how_far({"n_epochs": "x"}, 4) == "unfinished, 4 of ? epochs"
