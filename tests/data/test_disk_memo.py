import os
from pathlib import Path

import pytest

from neq.data.disk_memo import file_stamp, memoize


def test_a_result_may_be_lost_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    key = file_stamp([])
    assert memoize("kind", key, lambda: [1, 2]) == [1, 2]
    assert memoize("kind", key, lambda: [3]) == [1, 2]
    (path,) = (tmp_path / "cache" / "kind").iterdir()
    path.write_text("[1, ")
    assert memoize("kind", key, lambda: [3]) == [3]
    assert memoize("kind", key, lambda: [4]) == [3]
    monkeypatch.setenv("NEQ_CACHE", str(path / "no" / "folder"))
    assert memoize("kind", key, lambda: [5]) == [5]


def test_the_stamp_changes_with_path_size_time_and_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    os.utime(path, ns=(0, 1))
    stamps = [file_stamp([str(path)]), file_stamp([str(path)], "more"), file_stamp([str(tmp_path / "b")])]
    os.utime(path, ns=(0, 2))
    stamps.append(file_stamp([str(path)]))
    path.write_text("12")
    os.utime(path, ns=(0, 2))
    stamps.append(file_stamp([str(path)]))
    assert len(set(stamps)) == 5
    path.write_text("21")
    os.utime(path, ns=(0, 2))
    assert file_stamp([str(path)]) == stamps[-1]
