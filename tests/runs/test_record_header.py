import json

import pytest

from neq.runs.environment import Environment
from neq.runs.layout import FORMAT
from neq.runs.record_header import FRESH, UNKNOWN, RecordHeader, Stretch, SweepCell, read_header
from neq.utils.errors import UserError

ONE, TWO = Environment(threads=1, torch="2.9.0"), Environment(threads=2, torch="2.9.0")


def test_it_comes_back_as_it_was_written(tmp_path):
    stretches = (Stretch(ONE), Stretch(TWO, 3, 17))
    header = RecordHeader(stretches=stretches, sweeps=(SweepCell("a-12ab", 3), SweepCell("me/neq/x1", "y2")))
    header.write(tmp_path)
    assert read_header(tmp_path) == header
    assert header.environments == (ONE, TWO)
    content = json.loads((tmp_path / "record.json").read_text())
    assert content["format"] == FORMAT
    assert [(one["epoch"], one["step"], one["threads"]) for one in content["environments"]] == [
        (0, 0, 1),
        (3, 17, 2),
    ]
    assert content["sweeps"][0] == {"sweep": "a-12ab", "cell": 3}


def test_a_run_without_the_file_is_of_format_1(tmp_path):
    assert read_header(tmp_path) == UNKNOWN
    assert read_header(tmp_path / "gone") == UNKNOWN
    assert (UNKNOWN.format, UNKNOWN.environments, UNKNOWN.sweeps) == (1, (), ())


def test_a_newer_format_is_refused_whatever_else_it_holds(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"format": FORMAT + 1, "environments": 3}))
    with pytest.raises(UserError, match=rf"format {FORMAT + 1}, .* formats up to {FORMAT}; update neq"):
        read_header(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "3", "[]", "{}", "null", '{"format": "2"}', '{"format": 0}', '{"format": true}', "\x00\xff",
        '{"format": 2}', '{"format": 2, "environments": [3], "sweeps": []}', "[" * 100_000,
        '{"format": 2, "environments": [], "sweeps": [{}]}',
        '{"format": 2, "environments": [{"epoch": "x", "step": 0}], "sweeps": []}',
    ],
)  # fmt: skip
def test_a_damaged_one_is_one_line(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(UserError, match=r"record\.json is damaged \(.+\); put it back, or remove it"):
        read_header(tmp_path)


def test_a_run_that_goes_on_in_the_same_environment_has_one_stretch():
    header = FRESH.resumed(Stretch(ONE))
    assert header.resumed(Stretch(ONE, 2, 5)) == header
    assert header.change_at(Stretch(ONE, 2, 5)) == ""


def test_another_environment_begins_a_stretch_and_is_named():
    begun = Stretch(TWO, 2, 5)
    header = RecordHeader(stretches=(Stretch(ONE),)).resumed(begun)
    assert header.stretches == (Stretch(ONE), begun)
    assert header.change_at(begun) == "threads 1 -> 2"
    assert header.resumed(Stretch(TWO, 4)).change_at(Stretch(TWO, 4)) == ""


def test_what_a_stretch_computed_after_the_checkpoint_is_dropped_with_it():
    """Two starts after one checkpoint: what the first of them computed is not part of the run."""
    header = RecordHeader(stretches=(Stretch(ONE), Stretch(TWO, 2, 5)))
    assert header.resumed(Stretch(ONE, 2, 5)).stretches == (Stretch(ONE),)
    assert header.resumed(Stretch(ONE, 1)).stretches == (Stretch(ONE),)
    assert header.resumed(Stretch(ONE, 2, 6)).stretches == (*header.stretches, Stretch(ONE, 2, 6))


def test_a_run_of_format_1_has_no_environment_before_it_is_resumed():
    header = UNKNOWN.resumed(Stretch(ONE, 3))
    assert header.stretches == (Stretch(ONE, 3),)
    assert header.change_at(Stretch(ONE, 3)) == ""


def test_a_cell_that_asks_again_is_recorded_once():
    cell = SweepCell("a", 1)
    header = FRESH.asked_by(cell)
    assert header.sweeps == (cell,)
    assert header.asked_by(cell) == header
    assert header.asked_by(SweepCell("a", 2)).sweeps == (cell, SweepCell("a", 2))
