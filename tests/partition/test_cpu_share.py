import os
import time
from pathlib import Path

import pytest

from neq.partition import cpu_share
from neq.partition.cpu_share import quota, sleeping
from neq.utils.errors import UserError
from tests.forked import run_forked

LIMITED = """
import os, sys
from pathlib import Path
from neq.partition.cpu_share import ROOT, _own_group, quota
with quota(0.25):
    group, is_v2 = _own_group(ROOT)
    names = ["cpu.max"] if is_v2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    words = " ".join((group / name).read_text() for name in names)
    print(group.name == f"neq-{os.getpid()}", words.split())
print(group.exists())
"""


def writable():
    try:
        with quota(0.5):
            return True
    except UserError:
        return False


def test_a_quota_is_that_of_a_group_of_its_own():
    if not writable():
        pytest.skip("no control group may be written here")
    done = run_forked(LIMITED)
    assert done.stdout.split() == ["True", "['1000',", "'4000']", "False"], done.stderr


@pytest.mark.parametrize("is_v2", [False, True])
def test_what_is_written_to_a_group(tmp_path, monkeypatch, is_v2):
    group, written = tmp_path / "own", {}
    group.mkdir()
    monkeypatch.setattr(cpu_share, "_own_group", lambda root: (group, is_v2))

    def kept(path, text):
        written[path.relative_to(group).as_posix()] = text

    monkeypatch.setattr(Path, "write_text", kept)
    with quota(0.5):
        made = f"neq-{os.getpid()}"
        assert (group / made).is_dir()
        limit = (
            {"cpu.max": "1000 2000"} if is_v2 else {"cpu.cfs_period_us": "2000", "cpu.cfs_quota_us": "1000"}
        )
        assert written == {
            **{f"{made}/{name}": text for name, text in limit.items()},
            f"{made}/cgroup.procs": str(os.getpid()),
        }
    assert written["cgroup.procs"] == str(os.getpid())
    assert not (group / made).exists()


def test_no_group_that_may_be_written(tmp_path):
    with (
        pytest.raises(UserError, match=r"--cpu-share by quota is not possible here .*--slow-by sleep"),
        quota(0.5, tmp_path),
    ):
        pass
    with quota(1.0, tmp_path):
        assert not list(tmp_path.iterdir())


def test_sleeping_takes_what_the_share_lacks(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    slow = sleeping(0.25)
    assert slow is not None
    slow(2.0)
    assert slept == [6.0]
    assert sleeping(1.0) is None
