import io
import stat
import tarfile
import zipfile

import pytest
from rich.console import Console

from neq.data.published.unpack import unpack
from neq.utils.errors import UserError
from tests.data.published.small_sets import tar, zipped

QUIET = Console(quiet=True)
FILES = {"top/a.txt": b"a", "top/deep/b.txt": b"b" * 5000, "other/c.txt": b"c", "d.txt": b"d"}


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def write(kind, path, files):
    if kind == "zip":
        zipped(path, files)
    else:
        tar(path, files, kind)


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_what_is_wanted_is_unpacked_and_nothing_else(raw, kind):
    write(kind, raw / "x.gz", FILES)
    unpack(raw / "x.gz", ("top", "d.txt"), raw, QUIET)
    assert names(raw) == ["d.txt", "top/a.txt", "top/deep/b.txt", "x.gz"]
    assert (raw / "top/deep/b.txt").read_bytes() == b"b" * 5000


def test_what_is_there_stays_as_it_is(raw):
    tar(raw / "x.tgz", FILES)
    (raw / "d.txt").write_text("mine")
    unpack(raw / "x.tgz", ("top/a.txt", "d.txt"), raw, QUIET)
    assert (raw / "d.txt").read_text() == "mine"
    assert (raw / "top/a.txt").read_text() == "a"


@pytest.mark.parametrize("kind", ["zip", "w:gz"])
@pytest.mark.parametrize("name", ["top/../../evil.txt", "/tmp/evil.txt", "../evil.txt"])
def test_a_name_that_leads_out_is_refused(raw, kind, name):
    write(kind, raw / "x", {"top/a.txt": b"a", name: b"evil"})
    with pytest.raises(UserError, match=r"evil\.txt', which leads out of the folder"):
        unpack(raw / "x", ("top",), raw, QUIET)
    assert names(raw.parent) == ["raw/x"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_of_a_tar_are_not_made(raw, kind):
    (raw.parent / "secret.txt").write_text("secret")
    with tarfile.open(raw / "x.tar", "w") as archive:
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = kind, "../../secret.txt"
        archive.addfile(link)
        through = tarfile.TarInfo("top/a.txt")
        through.size = 1
        archive.addfile(through, io.BytesIO(b"a"))
    unpack(raw / "x.tar", ("top",), raw, QUIET)
    assert names(raw) == ["top/a.txt", "x.tar"]


def test_nothing_is_written_through_a_link(raw):
    outside = raw.parent / "outside"
    outside.mkdir()
    with tarfile.open(raw / "x.tar", "w") as archive:
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        through = tarfile.TarInfo("top/link/evil.txt")
        through.size = 4
        archive.addfile(through, io.BytesIO(b"evil"))
    unpack(raw / "x.tar", ("top",), raw, QUIET)
    assert list(outside.iterdir()) == []


def test_links_of_a_zip_are_not_made(raw):
    with zipfile.ZipFile(raw / "x.zip", "w") as archive:
        archive.writestr("top/a.txt", "a")
        link = zipfile.ZipInfo("top/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "../../secret.txt")
    unpack(raw / "x.zip", ("top",), raw, QUIET)
    assert names(raw) == ["top/a.txt", "x.zip"]


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_a_truncated_archive_leaves_nothing(raw, kind):
    write(kind, raw / "x", {f"top/{number}": bytes([number]) * 3000 for number in range(50)})
    whole = (raw / "x").read_bytes()
    (raw / "x").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        unpack(raw / "x", ("top",), raw, QUIET)
    assert names(raw) == ["x"]


@pytest.mark.parametrize("kind", ["zip", "w:gz"])
def test_a_flipped_byte_is_found(raw, kind):
    write(kind, raw / "x", {"top/a": bytes(range(256)) * 40})
    data = bytearray((raw / "x").read_bytes())
    data[len(data) // 3] ^= 0xFF
    (raw / "x").write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        unpack(raw / "x", ("top",), raw, QUIET)
    assert names(raw) == ["x"]


@pytest.mark.parametrize("content", [b"", b"<html>Sorry</html>", b"PK\x05\x06" + b"\0" * 18])
def test_no_archive_at_all(raw, content):
    (raw / "x").write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged|has no 'top'"):
        unpack(raw / "x", ("top",), raw, QUIET)
    assert names(raw) == ["x"]


def test_an_archive_that_lacks_something_gives_nothing(raw):
    tar(raw / "x.tgz", FILES)
    with pytest.raises(UserError, match=r"has no 'list\.txt'; it is not the published one"):
        unpack(raw / "x.tgz", ("top", "list.txt"), raw, QUIET)
    assert names(raw) == ["x.tgz"]


def test_what_an_interrupted_call_left_is_removed(raw):
    tar(raw / "x.tgz", FILES)
    (raw / ".x.tgz.unpacking/top").mkdir(parents=True)
    (raw / ".x.tgz.unpacking/top/half.txt").write_text("ha")
    unpack(raw / "x.tgz", ("top",), raw, QUIET)
    assert names(raw) == ["top/a.txt", "top/deep/b.txt", "x.tgz"]
