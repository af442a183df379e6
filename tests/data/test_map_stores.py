"""Stores of maps: in memory and on disk."""

import logging
import os

import pytest
import torch

from neq.data.map_stores import DiskMaps, MemoryMaps


def row(value, size=100):
    return torch.full((size,), value, dtype=torch.uint8)


@pytest.fixture(params=["memory", "disk"])
def make(request, tmp_path):
    """A function that makes a store of so many bytes."""
    return MemoryMaps if request.param == "memory" else lambda limit: DiskMaps(tmp_path / "maps", limit)


def test_rows_are_found_by_digest_and_key(make):
    store = make(10_000)
    store.use("a", 1000)
    assert store.known("a") == set()
    assert store.find("a", (8, 0, 5)) is None
    keys = [(8, 0, 5), (8, 1, 5), (4, 0, 5), (8, None, 5)]
    for number, key in enumerate(keys):
        assert store.keep("a", key, row(number))
    store.use("b", 1000)
    assert store.keep("b", keys[0], row(9))
    assert store.known("a") == set(keys)
    assert store.known("b") == {keys[0]}
    assert [int(store.find("a", key)[0]) for key in keys] == [0, 1, 2, 3]
    assert int(store.find("b", keys[0])[99]) == 9


def test_a_row_is_a_copy():
    store, mine = MemoryMaps(1000), row(1)
    store.keep("a", (1, 0, 0), mine)
    mine.zero_()
    assert int(store.find("a", (1, 0, 0))[0]) == 1


def test_the_limit_holds(make):
    store = make(350)
    store.use("a", 1000)
    kept = [store.keep("a", (1, 0, number), row(1)) for number in range(5)]
    assert kept == [True, True, True, False, False]
    assert len(store.known("a")) == 3


def test_digests_used_long_ago_make_room_and_the_last_two_do_not(make):
    store = make(350)
    for digest in ("old", "steps", "evaluations"):
        store.use(digest, 100)
        assert store.keep(digest, (1, 0, 0), row(1))
    assert store.known("old")
    store.use("steps", 200)  # 100 more
    assert not store.known("old")
    assert store.keep("steps", (1, 0, 1), row(1))
    assert not store.keep("steps", (1, 0, 2), row(1))
    assert store.known("evaluations")
    store.use("new", 200)
    assert not store.known("evaluations")
    assert len(store.known("steps")) == 2


def test_processes_share_a_disk_store(tmp_path):
    first, second = (DiskMaps(tmp_path, 10_000) for _ in range(2))
    for store in (first, second):
        store.use("a", 1000)
        store.keep("a", (8, 2, 3), row(7))
    assert second.known("a") == {(8, 2, 3)}
    assert torch.equal(second.find("a", (8, 2, 3)), row(7))
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == ["3"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_missing_with_one_line(tmp_path, damage, caplog):
    store = DiskMaps(tmp_path, 10_000)
    store.use("a", 1000)
    store.keep("a", (8, None, 3), row(7))
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    content = path.read_bytes()
    path.write_bytes({"flip": content[:-1] + b"\0", "cut": content[:50], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, "neq"):
        assert store.find("a", (8, None, 3)) is None
        assert store.find("a", (8, None, 3)) is None
    assert len(caplog.messages) == 1
    assert "damaged" in caplog.messages[0]
    assert store.known("a") == set()


def test_a_disk_that_cannot_be_written_keeps_nothing(tmp_path):
    (tmp_path / "maps").write_text("a file in the place of the folder")
    store = DiskMaps(tmp_path / "maps", 10_000)
    store.use("a", 1000)
    assert not store.keep("a", (8, 0, 3), row(7))
    assert store.known("a") == set()
    assert store.find("a", (8, 0, 3)) is None


def test_what_else_lies_in_the_folder_is_no_key(tmp_path):
    store = DiskMaps(tmp_path, 10_000)
    store.use("a", 1000)
    store.keep("a", (8, 0, 3), row(7))
    (tmp_path / "a" / "8-0" / ".4.123.tmp").write_bytes(b"half")
    (tmp_path / "a" / "notes").mkdir()
    (tmp_path / "a" / "notes" / "5").write_bytes(b"")
    (tmp_path / "a" / "8-0" / "six").write_bytes(b"")
    assert store.known("a") == {(8, 0, 3)}
