import os

import pytest
from optuna.study import StudyDirection
from sqlalchemy.exc import OperationalError

from neq.sweeps.storage import FILE, close_storage, open_storage, patiently, unreachable_refused
from neq.utils.errors import UserError


@pytest.mark.parametrize("place", ["mysql://here/db", "runs.db", "redis://here", "https://x"])
def test_a_place_that_is_no_known_database_is_refused(tmp_path, place):
    with pytest.raises(UserError, match=r"is not allowed: give postgresql://USER@HOST/DATABASE"):
        open_storage(place, tmp_path)


def test_a_server_that_does_not_answer_is_one_line_without_the_password(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(UserError, match="cannot be used") as caught:
        open_storage("postgresql://user:secret@127.0.0.1:1/x", tmp_path)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / FILE).write_bytes(b"something else altogether " * 100)
    with pytest.raises(UserError, match=r"sweeps.db cannot be used \(file is not a database\)"):
        open_storage(None, tmp_path)
    assert (tmp_path / FILE).read_bytes() == b"something else altogether " * 100


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        open_storage(None, tmp_path / "runs")


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "a {b}", "ü"])
def test_the_file_lies_in_the_folder_whatever_that_is_called(tmp_path, name):
    close_storage(open_storage(None, tmp_path / name))
    assert (tmp_path / name / FILE).is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_a_database_that_is_away_is_waited_for_and_not_for_ever():
    calls = []

    def away():
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("select", {}, Exception("server closed the connection"))
        return "back"

    assert patiently(away) == "back"
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(OperationalError):
        patiently(away, patience=-1)
    assert len(calls) == 1


def test_who_only_reads_does_not_wait_for_a_database_that_is_away(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waits"))
    with (
        pytest.raises(UserError, match=r"of the sweep is unreachable \(server gone\); try again later"),
        unreachable_refused(),
    ):
        raise OperationalError("select", {}, Exception("x")) from Exception("server gone")


def test_a_file_where_nothing_can_be_written_is_read(tmp_path, monkeypatch):
    storage = open_storage(None, tmp_path)
    storage.create_new_study([StudyDirection.MAXIMIZE], "first")
    close_storage(storage)
    for file in tmp_path.iterdir():
        if file.name != FILE:
            file.unlink()
    (tmp_path / FILE).chmod(0o444)
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)  # root may write all the same
    tmp_path.chmod(0o555)
    try:
        storage = open_storage(None, tmp_path, reading=True)
        assert [study.study_name for study in storage.get_all_studies()] == ["first"]
        close_storage(storage)
        assert [file.name for file in tmp_path.iterdir()] == [FILE]
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.slow
def test_a_wait_is_told_once_in_the_words_of_the_database(capsys):
    calls = []

    def away():
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("select", {}, Exception("the server is gone")) from Exception(
                "gone\nfor now"
            )

    patiently(away, patience=60)
    assert capsys.readouterr().err == "neq: database unreachable (gone); retrying for up to 60 s\n"


@pytest.mark.parametrize("harm", ["deleted", "overwritten"])
def test_a_file_that_is_taken_away_or_spoilt_is_told_at_once(tmp_path, harm):
    storage = open_storage(None, tmp_path)
    storage.create_new_study([StudyDirection.MAXIMIZE], "first")
    if harm == "deleted":
        (tmp_path / FILE).unlink()
    else:
        (tmp_path / FILE).write_bytes(b"something else altogether " * 10_000)
    with pytest.raises(UserError, match="moved, deleted or damaged while it ran"):
        patiently(lambda: storage.create_new_study([StudyDirection.MAXIMIZE], "second"))
    close_storage(storage)


def test_other_faults_are_not_tried_again():
    calls = []

    def wrong():
        calls.append(1)
        raise ValueError("no database has to do with it")

    with pytest.raises(ValueError, match="no database"):
        patiently(wrong)
    assert len(calls) == 1
