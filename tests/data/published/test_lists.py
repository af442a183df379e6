import pytest

from neq.data.published.lists import read_json, rows
from neq.utils.errors import UserError


def test_rows(tmp_path):
    (tmp_path / "x.txt").write_text("# head\n1 a b\r\n\n2  c\n")
    assert rows(tmp_path / "x.txt", 2) == [["1", "a b"], ["2", "c"]]


def test_a_missing_list(tmp_path):
    with pytest.raises(UserError, match=r"x\.txt' is missing; every official list is needed"):
        rows(tmp_path / "x.txt", 2)


def test_a_short_row_is_named(tmp_path):
    (tmp_path / "x.txt").write_text("1 a\n2\n")
    with pytest.raises(UserError, match=r"line 2 of list .*x\.txt' is '2', but 2 fields"):
        rows(tmp_path / "x.txt", 2)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot be read \(UnicodeDecodeError"):
        rows(tmp_path / "x.txt", 2)


def test_json(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1]}')
    assert read_json(tmp_path / "x.json") == {"a": [1]}
    (tmp_path / "x.json").write_text('{"a": [1')
    with pytest.raises(UserError, match=r"x\.json' cannot be read \(JSONDecodeError"):
        read_json(tmp_path / "x.json")
