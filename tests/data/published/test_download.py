import hashlib
import shutil
import socket
from types import SimpleNamespace

import pytest
from rich.console import Console

from neq.data.published import download
from neq.data.published.download import Download, fetch
from neq.utils.errors import UserError
from tests.data.published.server import serving

DATA = bytes(range(256)) * 4000
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "x.tgz").write_bytes(DATA)
    (tmp_path / "raw").mkdir()
    with serving(tmp_path / "published") as server:
        yield server


@pytest.fixture
def get(server, tmp_path):
    def get(md5=MD5, verify=True, url=None):
        quiet = Console(quiet=True)
        return fetch(Download("x.tgz", url or f"{server.url}/x.tgz", md5), tmp_path / "raw", quiet, verify)

    return get


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def names(raw):
    return sorted(path.name for path in raw.iterdir())


def test_a_file_is_downloaded_once(get, server, raw):
    assert get() == MD5
    assert (raw / "x.tgz").read_bytes() == DATA
    assert names(raw) == ["x.tgz"]
    assert get() == MD5
    assert server.asked == [("/x.tgz", None)]


def test_what_was_downloaded_before_is_continued(get, server, raw):
    (raw / "x.tgz.part").write_bytes(DATA[:123_456])
    get()
    assert (raw / "x.tgz").read_bytes() == DATA
    assert server.asked == [("/x.tgz", "bytes=123456-")]


def test_a_server_that_does_not_continue_sends_all_again(get, server, raw):
    server.ranges = False
    (raw / "x.tgz.part").write_bytes(b"y" * 100)
    get()
    assert (raw / "x.tgz").read_bytes() == DATA


def test_a_server_that_sends_another_part_is_asked_for_all(get, server, raw):
    server.shift = 7
    (raw / "x.tgz.part").write_bytes(DATA[:100])
    get()
    assert (raw / "x.tgz").read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == ["bytes=100-", None]


def test_a_broken_connection_is_continued(get, server, raw):
    server.cut_after, server.cuts = 100_000, 7
    get()
    assert (raw / "x.tgz").read_bytes() == DATA
    assert [wanted for _, wanted in server.asked][:3] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_connection_that_never_gives_anything_ends_with_one_line(get, server, raw):
    server.cut_after, server.cuts = 0, 99
    with pytest.raises(
        UserError, match=r"cannot be downloaded \(the connection was closed early\).*after 0 b"
    ):
        get()
    assert len(server.asked) == download.TRIES


def test_what_came_before_the_end_stays(get, server, raw):
    server.cut_after, server.cuts = 300, 1
    server.answers = []

    def answers_after_first(*_):
        server.answers = [403]

    download.time.sleep, former = answers_after_first, download.time.sleep
    try:
        with pytest.raises(UserError, match=r"answers 403 Forbidden.*after 300 bytes"):
            get()
    finally:
        download.time.sleep = former
    assert (raw / "x.tgz.part").read_bytes() == DATA[:300]


def test_a_busy_server_is_asked_again(get, server, raw):
    server.answers = [503, 429, 500]
    get()
    assert (raw / "x.tgz").read_bytes() == DATA
    assert len(server.asked) == 4


def test_a_file_that_is_not_there_is_not_asked_for_again(get, server, raw):
    server.answers = [404]
    with pytest.raises(UserError, match=r"answers 404 Not Found\).*or put x\.tgz into .*raw'"):
        get()
    assert len(server.asked) == 1
    assert names(raw) == []


def test_a_part_that_is_all_of_it_needs_nothing_more(get, server, raw):
    (raw / "x.tgz.part").write_bytes(DATA)
    get()
    assert names(raw) == ["x.tgz"]
    assert [wanted for _, wanted in server.asked] == [f"bytes={len(DATA)}-"]


def test_a_part_that_is_too_long_is_thrown_away(get, server, raw):
    (raw / "x.tgz.part").write_bytes(DATA + b"more")
    get()
    assert (raw / "x.tgz").read_bytes() == DATA


def test_a_wrong_checksum_leaves_nothing(get, raw):
    with pytest.raises(UserError, match=rf"has md5 {MD5}, the published file 00; it was deleted; run"):
        get(md5="00")
    assert names(raw) == []


def test_a_damaged_part_is_found_out(get, raw):
    (raw / "x.tgz.part").write_bytes(b"y" * 1000)
    with pytest.raises(UserError, match="it was deleted"):
        get()
    assert get() == MD5


def test_a_wrong_file_of_the_users_is_refused_but_kept(get, server, raw):
    (raw / "x.tgz").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"has md5 .* delete it and run again to download it$"):
        get()
    assert get(verify=False) == hashlib.md5(b"mine").hexdigest()
    assert server.asked == []
    (raw / "x.tgz").unlink()
    assert get(md5="00", verify=False) == MD5


def test_a_file_without_checksum_is_not_continued(get, server, raw):
    (raw / "x.tgz.part").write_bytes(DATA[:100])
    assert get(md5=None) == MD5
    assert server.asked == [("/x.tgz", None)]


def test_a_server_that_does_not_tell_the_size(get, server, raw):
    server.length = False
    get()
    assert (raw / "x.tgz").read_bytes() == DATA


def test_no_network(get, raw):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x.tgz"
        with pytest.raises(UserError, match=r"cannot be downloaded \(.*refused.*check the network"):
            get(url=url)
    assert names(raw) == []


def test_a_file_that_does_not_fit_on_the_disk_is_not_begun(get, raw, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"needs 1,024,000 bytes more.*has 1,000 free"):
        get()
    assert names(raw) == []
