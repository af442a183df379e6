import errno
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image
from rich.console import Console

from neq.data.image_folder import open_image_folder
from neq.data.published.mark import MARK, UNFINISHED, Mark, finished_mark
from neq.data.published.prepare import write_split
from neq.data.published.split_plan import plan_split
from neq.utils.errors import UserError
from tests.data.published.small_sets import content, jpeg
from tests.data.published.test_split_plan import listed
from tests.forked import run_forked

QUIET = Console(quiet=True)
SETTINGS = {"set": "mini", "validation": 0.2}


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw/all").mkdir(parents=True)
    for number, image in enumerate(listed(train=5, test=2)):
        (tmp_path / "raw" / image.path).write_bytes(jpeg(number, (40, 60)))
    return tmp_path / "raw"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def plan_of(raw):
    return plan_split(listed(train=5, test=2), raw, 0.2)


def write(raw, out, link=False, side=None):
    counts = {"train": 8, "val": 2, "test": 4}
    mark = Mark(settings=SETTINGS, counts=counts, classes=2, official_counts=True, sources=[])
    write_split(plan_of(raw), out, mark, link, side, QUIET)


def expected(raw):
    tree = {}
    for item in plan_of(raw):
        tree.setdefault(f"{item.split}/{item.class_folder}", []).append(item.name)
    return {folder: sorted(names) for folder, names in sorted(tree.items())}


def assert_finished(raw, out):
    assert content(out) == expected(raw)
    assert {path.name for path in out.iterdir()} == {"train", "val", "test", MARK}
    mark = finished_mark(out, SETTINGS)
    assert mark is not None
    assert mark.counts == {"train": 8, "val": 2, "test": 4}
    assert {name: len(part) for name, part in open_image_folder(str(out)).official.items()} == {
        "train": 8,
        "validation": 2,
        "test": 4,
    }


def test_a_split_is_written_and_can_be_read(raw, out):
    before = {path: path.read_bytes() for path in raw.rglob("*.jpg")}
    write(raw, out)
    assert_finished(raw, out)
    for item in plan_of(raw):
        assert (out / item.split / item.class_folder / item.name).read_bytes() == before[item.source]
    assert {path: path.read_bytes() for path in raw.rglob("*.jpg")} == before


def test_links_are_hard_links(raw, out):
    write(raw, out, link=True)
    assert_finished(raw, out)
    for item in plan_of(raw):
        assert (out / item.split / item.class_folder / item.name).samefile(item.source)
        assert not (out / item.split / item.class_folder / item.name).is_symlink()
    shutil.rmtree(raw)
    assert len(open_image_folder(str(out)).labels) == 14


def test_copies_share_nothing_with_the_originals(raw, out):
    write(raw, out)
    assert not any(
        (out / item.split / item.class_folder / item.name).samefile(item.source) for item in plan_of(raw)
    )


def test_a_link_to_a_linked_original_is_of_its_content(raw, out):
    path = raw / plan_of(raw)[0].source.relative_to(raw)
    path.rename(raw / "real.jpg")
    path.symlink_to(raw / "real.jpg")
    write(raw, out, link=True)
    item = plan_of(raw)[0]
    assert not (out / item.split / item.class_folder / item.name).is_symlink()


def test_links_where_there_can_be_none(raw, out, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UserError, match=r"cannot be linked .*cross-device.*leave out --link"):
        write(raw, out, link=True)
    write(raw, out)
    assert_finished(raw, out)


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (1000, 30), (20, 20), (24, 90)])
def test_images_are_shrunk_to_their_smaller_side(raw, out, size):
    item = plan_of(raw)[0]
    item.source.write_bytes(jpeg(3, size))
    write(raw, out, side=24)
    target = out / item.split / item.class_folder / item.name
    with Image.open(target) as image:
        if min(size) <= 24:
            assert target.read_bytes() == item.source.read_bytes()
        else:
            assert min(image.size) == 24
            assert abs(max(image.size) / 24 - max(size) / min(size)) < 0.03


def test_a_shrunk_image_stands_upright_and_is_rgb(raw, out):
    item = plan_of(raw)[0]
    picture = Image.new("L", (60, 40), 200)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(item.source, "JPEG", exif=exif)
    write(raw, out, side=20)
    with Image.open(out / item.split / item.class_folder / item.name) as image:
        assert (image.size, image.mode) == ((20, 30), "RGB")


def test_a_corrupt_image_that_is_to_be_shrunk_is_named(raw, out):
    item = plan_of(raw)[4]
    item.source.write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"{item.name}' cannot be read .*identify"):
        write(raw, out, side=20)
    assert not (out / "train").exists()


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_what_was_written_before_a_fault_is_not_written_again(raw, out, monkeypatch, fault):
    copies, copy = [], shutil.copyfile

    def copy_five(source, target):
        if len(copies) == 5:
            Path(target).write_bytes(Path(source).read_bytes()[:10])
            raise fault
        copies.append(target)
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_five)
    with pytest.raises(type(fault)):
        write(raw, out)
    assert content(out) == {}
    assert finished_mark(out, SETTINGS) is None
    with pytest.raises(UserError):
        open_image_folder(str(out))
    rest = []
    monkeypatch.setattr(shutil, "copyfile", lambda *paths: (rest.append(paths), copy(*paths)))
    write(raw, out)
    assert_finished(raw, out)
    assert len(rest) == 14 - 5


KILLED = """
import os, sys
from pathlib import Path
from tests.data.published.test_prepare import write
at, count, replace = int(sys.argv[1]), 0, os.replace
def dying(*paths):
    global count
    count += 1
    if count == at and sys.argv[2] == "before":
        os._exit(9)
    replace(*paths)
    if count == at:
        os._exit(9)
os.replace = dying
write(Path(sys.argv[3]), Path(sys.argv[4]))
"""


# 1: the mark of the start; 2 to 15: images; 16 to 18: test, val, train; 19: the mark
@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [1, 9, 16, 18, 19])
def test_a_killed_process_leaves_no_half_split(raw, out, at, when):
    assert run_forked(KILLED, str(at), when, str(raw), str(out)).returncode == 9
    if at < 18 or (at, when) == (18, "before"):
        with pytest.raises(UserError):
            open_image_folder(str(out))
    else:
        assert len(open_image_folder(str(out)).labels) == 14
    if finished_mark(out, SETTINGS) is None:
        write(raw, out)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    assert_finished(raw, out)


def interrupted(raw, out, monkeypatch):
    """Starts to write a split, and stops at its first image."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", stop)
        with pytest.raises(KeyboardInterrupt):
            write(raw, out)


def test_an_unfinished_split_of_other_lists_is_not_continued(raw, out, monkeypatch):
    interrupted(raw, out, monkeypatch)
    item = plan_of(raw)[0]
    stale = out / UNFINISHED / item.split / item.class_folder / "of_other_lists.jpg"
    stale.write_bytes(item.source.read_bytes())
    with pytest.raises(UserError, match=r"test' has 5 images, but 4 belong there; .* other lists"):
        write(raw, out)
    assert not (out / "test").exists()


def test_unfinished_and_finished_splits_of_other_settings_are_refused(raw, out, monkeypatch):
    interrupted(raw, out, monkeypatch)
    with pytest.raises(
        UserError, match=r"unfinished split with validation 0\.2, but validation None is requested"
    ):
        finished_mark(out, {**SETTINGS, "validation": None})
    write(raw, out)
    with pytest.raises(UserError, match=r"a finished split with set 'mini', but set 'pets'"):
        finished_mark(out, {**SETTINGS, "set": "pets"})


def test_a_finished_split_that_lost_images_is_refused(raw, out):
    write(raw, out)
    next((out / "train").rglob("*.jpg")).unlink()
    with pytest.raises(UserError, match=r"out/train' has 7 images, but 8 belong there"):
        finished_mark(out, SETTINGS)
    shutil.rmtree(out / "val")
    shutil.rmtree(out / "train")
    with pytest.raises(UserError, match="has 0 images, but 8"):
        finished_mark(out, SETTINGS)


def test_a_stranger_in_the_unfinished_folder_is_named(raw, out):
    (out / UNFINISHED / "train/0.name_0").mkdir(parents=True)
    (out / UNFINISHED / "train/0.name_0/mine.jpg").write_bytes(jpeg(1))
    with pytest.raises(UserError, match="train' has 9 images, but 8 belong there"):
        write(raw, out)
    assert not (out / MARK).exists()


def test_two_processes_do_not_write_one_folder(raw, out):
    (out / UNFINISHED).mkdir(parents=True)
    with FileLock(out / UNFINISHED / "lock"), pytest.raises(UserError, match="another process is writing"):
        write(raw, out)
