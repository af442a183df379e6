import hashlib
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from neq.data.published.download import Download, UnofficialError
from neq.data.published.obtain import is_complete, obtain
from neq.utils.errors import UserError
from tests.data.miniatures import tar

QUIET = Console(quiet=True)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with a published archive and a published list."""
    (tmp_path / "raw").mkdir()
    tar(tmp_path / "raw" / "a.tgz", {"images/1.jpg": b"1", "images/2.jpg": b"2"})
    (tmp_path / "raw" / "list.txt").write_text("1 2")
    return tmp_path / "raw"


def files(raw: Path) -> tuple[Download, Download]:
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in raw.iterdir() if path.is_file()}
    archive = Download("a.tgz", "http://127.0.0.1:9/a.tgz", md5["a.tgz"], ("images",))
    return archive, Download("list.txt", "http://127.0.0.1:9/list.txt", md5["list.txt"])


def test_the_checksum_of_an_archive_is_recorded_beside_what_was_unpacked(raw: Path) -> None:
    downloads = files(raw)
    assert not is_complete(downloads, raw)
    md5 = [download.md5 for download in downloads]
    assert obtain("set", downloads, raw, QUIET) == md5
    assert is_complete(downloads, raw)
    assert (raw / "a.tgz").exists()
    (raw / "a.tgz").unlink()
    assert obtain("set", downloads, raw, QUIET) == md5
    (raw / ".a.tgz.md5").write_text("00")
    with pytest.raises(
        UnofficialError, match=r"images' was unpacked from an archive with md5 00.*delete images and a\.tgz"
    ):
        obtain("set", downloads, raw, QUIET)
    assert obtain("set", downloads, raw, QUIET, verify=False) == ["00", md5[1]]
    (raw / ".a.tgz.md5").unlink()
    assert obtain("set", downloads, raw, QUIET) == [None, md5[1]]


def test_published_files_that_lie_beside_the_folder_are_used_and_stay(raw: Path, tmp_path: Path) -> None:
    downloads = files(raw)
    obtain("set", downloads, tmp_path / "deep" / "raw", QUIET, beside=raw, keep_archives=False)
    found = {path.name for path in (tmp_path / "deep" / "raw").iterdir() if not path.name.startswith(".")}
    assert found == {"images", "list.txt"}
    assert {path.name for path in raw.iterdir()} == {"a.tgz", "list.txt"}


def test_a_wrong_file_beside_the_folder_is_refused_by_its_own_name_and_stays(
    raw: Path, tmp_path: Path
) -> None:
    downloads = files(raw)
    (raw / "list.txt").write_text("wrong")
    with pytest.raises(UserError, match=rf"{raw}/list\.txt' has md5"):
        obtain("set", downloads, tmp_path / "other", QUIET, beside=raw)
    assert (raw / "list.txt").read_text() == "wrong"
    assert not (tmp_path / "other" / "list.txt").exists()


def test_one_process_waits_for_another(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    downloads = files(raw)
    done = threading.Event()

    def work() -> None:
        obtain("set", downloads, raw, Console(stderr=True))
        done.set()

    with FileLock(raw / ".set.lock", thread_local=False):
        thread = threading.Thread(target=work)
        thread.start()
        assert not done.wait(0.3)
        assert not (raw / "images").exists()
    thread.join()
    assert is_complete(downloads, raw)
    assert "waiting for another process" in capsys.readouterr().err
