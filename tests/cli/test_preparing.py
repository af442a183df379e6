"""The five scripts, each on a miniature of its set, as a user calls them."""

import errno
import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image
from scipy.io import savemat

from neq.cli.preparing import run_script
from neq.data.image_folder import open_image_folder
from neq.data.published import download
from neq.data.published.mark import MARK, read_mark
from neq.data.published.published_set import count_deviations
from neq.data.published.split_plan import PlannedImage, plan_split
from tests.data.miniatures import jpeg
from tests.data.published.server import serving
from tests.data.published.small_sets import MAKERS, SETS, content, miniature, vww_files
from train_test_split import cub200, flowers102, food101, pets, vww

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"cub200": cub200, "flowers102": flowers102, "food101": food101, "pets": pets, "vww": vww}
EVERY = pytest.mark.parametrize("name", list(MAKERS))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def published(tmp_path):
    """Makes a miniature and serves it: its tree, the server, and a caller of its script."""
    folder = tmp_path / "published"
    folder.mkdir()
    with serving(folder) as server:

        def make(name):
            module, tree = SCRIPTS[name], MAKERS[name](folder)

            def call(*flags):
                def describe(parsed):
                    whole = module.describe(parsed) if name == "vww" else SETS[name]
                    return miniature(whole, folder, server.url, tree)

                arguments = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), *flags]
                return run_script(module.ABOUT, describe, getattr(module, "add_flags", None), arguments)

            return tree, server, call

        yield make


def ordered(tree):
    return {folder: sorted(names) for folder, names in sorted(tree.items())}


@EVERY
def test_a_set_is_downloaded_split_and_read(name, published, tmp_path, capsys):
    tree, server, call = published(name)
    assert call() == 0
    assert content(tmp_path / "out") == ordered(tree)
    source = open_image_folder(str(tmp_path / "out"))
    assert set(source.official) == {"train", "test", *(["validation"] if name == "flowers102" else [])}
    assert source.image(0).shape[0] == 3
    output = capsys.readouterr().out
    mark = read_mark(tmp_path / "out" / MARK)
    assert mark is not None
    assert mark.official_counts
    assert all(source.md5 for source in mark.sources)
    for split, count in mark.counts.items():
        assert count == sum(len(names) for folder, names in tree.items() if folder.startswith(split))
        assert f"{split}" in output
    assert "train on it: --dataset image_folder --root" in output
    assert "warning" not in output
    asked = len(server.asked)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert call() == 0
    assert "finished already; nothing was done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert len(server.asked) == asked == len(SETS[name].downloads)


@EVERY
def test_links_and_validation(name, published, tmp_path, capsys):
    tree, _, call = published(name)
    assert call("--validation", "0.34", "--link") == 0
    source = open_image_folder(str(tmp_path / "out"))
    assert set(source.official) == {"train", "validation", "test"}
    test = {folder: names for folder, names in ordered(tree).items() if folder.startswith("test")}
    found = content(tmp_path / "out")
    assert {folder: names for folder, names in found.items() if folder.startswith("test")} == test
    assert sorted(chain(*found.values())) == sorted(chain(*tree.values()))
    assert all(path.stat().st_nlink == 2 for path in (tmp_path / "out").rglob("*.jpg"))
    assert "val was cut by --validation" in capsys.readouterr().out


@EVERY
def test_an_unpacked_set_needs_neither_archives_nor_network(name, published, tmp_path):
    tree, server, call = published(name)
    assert call() == 0
    for path in (tmp_path / "raw").iterdir():
        if path.suffix in (".tgz", ".gz", ".zip"):
            path.unlink()
    shutil.rmtree(tmp_path / "out")
    server.answers = [404] * 9
    assert call() == 0
    assert content(tmp_path / "out") == ordered(tree)


def test_a_set_unpacked_by_somebody_else_is_said_to_be_unchecked(published, tmp_path, capsys):
    _, _, call = published("cub200")
    assert call() == 0
    shutil.rmtree(tmp_path / "out")
    for path in (tmp_path / "raw").iterdir():
        if path.is_file():
            path.unlink()
    assert call() == 0
    assert "checksum is not known: CUB_200_2011.tgz" in capsys.readouterr().out


def test_a_raw_folder_that_has_everything_is_only_read(published, tmp_path, monkeypatch):
    _, _, call = published("flowers102")
    assert call() == 0
    shutil.rmtree(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").rglob("*")}
    lock = tmp_path / "raw/.flowers.lock"
    lock.unlink()

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("neq.data.published.obtain._taking_turns", refuse)
    assert call() == 0
    del before[lock]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert not lock.exists()


def test_the_official_numbers():
    counts = {name: dict(published.counts) for name, published in SETS.items()}
    assert counts == {
        "cub200": {"train": 5994, "test": 5794},
        "flowers102": {"train": 1020, "validation": 1020, "test": 6149},
        "food101": {"train": 75750, "test": 25250},
        "pets": {"train": 3680, "test": 3669},
        "vww": {"train": 115228, "test": 8059},
    }


# Of version 0.1.0: the official splits, and with --validation 0.34.
PLANS = {
    "cub200": (
        "a6d9ae0b81b264ee9e9c23bb149ec997f4cebb3431beb5d9ca4c49d00ff0b79e",
        "5638fad8a61a1797b9b131966ae178eef63ca618e3640cccaf75e8b799db3618",
    ),
    "flowers102": (
        "1f43ee996553bec904224130f7a597f680f8619109755083e325d6561433c697",
        "b780732a8d2354cc982b073288df20ed1ecc4e48d62f011a51488c8310eceb92",
    ),
    "food101": (
        "4ec562da87189dd916b963e6862cc934cb34c2c8daa9c5ad83aadeffa12d9ded",
        "a733a6532dc6794a0b7f3f01c0ad0b75a62f5264dd4c76b32c3db84d33c8c808",
    ),
    "pets": (
        "32fa53a3dbe996d88a1b24fe12eeee2604c83ce3d97e592f1e70f6cc931df80b",
        "f85daf5ceae8446a30a20519bb8f4a9227d1be999a0636b89009f4112e960498",
    ),
    "vww": (
        "d86cacb70fd2096ce9411b2001c1ea6ee89da255c52dd73ace57b579ce9cf484",
        "9c1718b18fbab46468bc72fc6abb8d9c86e4ff47ab6e29d9cda4cb2aae5b9d6f",
    ),
}


def digest(plan: list[PlannedImage]) -> str:
    """The sha256 of where each image goes."""
    places = "".join("\0".join(image[:3]) + "\n" for image in plan)
    return hashlib.sha256(places.encode()).hexdigest()


@EVERY
def test_every_image_goes_to_the_same_place_as_before(name, published, tmp_path):
    _, _, call = published(name)
    assert call() == 0
    listed = SETS[name].read(tmp_path / "raw")
    plans = tuple(digest(plan_split(listed, tmp_path / "raw", share)) for share in (None, 0.34))
    assert plans == PLANS[name]


def full_cub(raw, missing):
    (raw / "CUB_200_2011").mkdir()
    ids = range(1, 11788 + 1 - missing)
    texts = {
        "images": [f"{i} {1 + i % 200:03d}.Bird/{i}.jpg" for i in ids],
        "classes": [f"{bird} {bird:03d}.Bird" for bird in range(1, 201)],
        "image_class_labels": [f"{i} {1 + i % 200}" for i in ids],
        "train_test_split": [f"{i} {int(i <= 5994)}" for i in ids],
    }
    for name, lines in texts.items():
        (raw / "CUB_200_2011" / f"{name}.txt").write_text("\n".join(lines))


def full_flowers(raw, missing):
    labels = [1 + image % 102 for image in range(8189)]
    savemat(raw / "imagelabels.mat", {"labels": labels})
    ids = list(range(1, 8190 - missing))
    savemat(raw / "setid.mat", {"trnid": ids[:1020], "valid": ids[1020:2040], "tstid": ids[2040:]})


def full_food(raw, missing):
    (raw / "food-101/meta").mkdir(parents=True)
    for split, count in (("train", 750), ("test", 250)):
        lists = {f"dish_{dish}": [f"dish_{dish}/{split}{n}" for n in range(count)] for dish in range(101)}
        if split == "test" and missing:
            lists["dish_0"].pop()
        (raw / f"food-101/meta/{split}.json").write_text(json.dumps(lists))


def full_pets(raw, missing):
    (raw / "annotations").mkdir()
    for name, count in (("trainval", 3680), ("test", 3669 - missing)):
        lines = [f"breed_{1 + n % 37}_{name}{n} {1 + n % 37} 1 1" for n in range(count)]
        (raw / f"annotations/{name}.txt").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("name", "lists", "classes"),
    [
        ("cub200", full_cub, 200),
        ("flowers102", full_flowers, 102),
        ("food101", full_food, 101),
        ("pets", full_pets, 37),
    ],
)
@pytest.mark.parametrize("missing", [0, 1])
def test_lists_of_full_size_give_the_official_numbers(name, lists, classes, missing, tmp_path):
    lists(tmp_path, missing)
    published = SETS[name]
    listed = published.read(tmp_path)
    assert len({image.class_id for image in listed}) == classes
    deviations = count_deviations(listed, published.counts)
    assert deviations == ([f"test has {published.counts['test'] - 1:,} images, officially "
                           f"{published.counts['test']:,}"] if missing else [])  # fmt: skip


@pytest.mark.slow
@EVERY
def test_a_miniature_is_refused_unless_it_may_be_unverified(name, tmp_path, capsys):
    """With the real checksums and counts, on files that lie in --raw."""
    (tmp_path / "raw").mkdir()
    tree = MAKERS[name](tmp_path / "raw")
    script = SCRIPTS[name]
    folders = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]

    def run(*flags):
        def describe(parsed):
            return script.describe(parsed) if name == "vww" else SETS[name]

        code = run_script(script.ABOUT, describe, getattr(script, "add_flags", None), [*folders, *flags])
        return code, *capsys.readouterr()

    code, _, error = run()
    assert code == 2
    assert error.count("\n") == 1
    assert "has md5" in error
    assert error.endswith("or give --unverified to use it as it is\n")
    assert not (tmp_path / "out").exists()
    code, output, error = run("--unverified")
    assert code == 0, error
    assert "warning: train has" in output
    assert "warning: '" in output
    assert "not the official numbers" in output
    shutil.rmtree(tmp_path / "out")
    code, _, error = run()  # files unpacked unverified are not accepted as verified later
    assert code == 2
    assert "was unpacked from an archive with md5" in error
    assert run("--unverified")[0] == 0
    assert content(tmp_path / "out") == ordered(tree)


@pytest.mark.slow
def test_the_program_itself_refuses_a_wrong_file(tmp_path):
    (tmp_path / "raw").mkdir()
    MAKERS["pets"](tmp_path / "raw")
    script = [sys.executable, str(ROOT / "train_test_split" / "pets.py"), "--raw", "raw", "--out", "out"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has md5" in done.stderr
    assert not (tmp_path / "out").exists()


def test_other_numbers_than_the_official_ones_are_refused(published, tmp_path, capsys, monkeypatch):
    _, _, call = published("pets")
    assert call() == 0
    shutil.rmtree(tmp_path / "out")
    path = tmp_path / "raw/annotations/test.txt"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    assert call() == 2
    assert "test has 2 images, officially 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert call("--unverified") == 0


def test_a_missing_list_and_absent_images(published, tmp_path, capsys):
    _, _, call = published("cub200")
    assert call() == 0
    shutil.rmtree(tmp_path / "out")
    top = tmp_path / "raw/CUB_200_2011"
    images = sorted((top / "images").rglob("*.jpg"))
    images[0].unlink()
    assert call() == 2
    assert "1 of 10 images named in the lists are absent" in capsys.readouterr().err
    images[0].write_bytes(jpeg(1))
    (top / "classes.txt").unlink()
    assert call() == 0  # the archive is still there: the list is unpacked again
    assert (top / "classes.txt").exists()


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("cub200", "CUB_200_2011/train_test_split.txt", "1 1\n", "must have the same"),
        ("flowers102", "setid.mat", "no matlab", "setid.mat' has md5"),
        ("vww", "annotations/instances_val2014.json", '{"images": []}', "cannot be read (KeyError"),
        ("vww", "mscoco_minival_ids.txt", "1000 x", "cannot be read (ValueError"),
        ("vww", "mscoco_minival_ids.txt", "5555", "1 of 1 images of mscoco_minival_ids.txt"),
    ],
)
def test_damaged_lists_end_with_one_line(name, file, text, message, published, tmp_path, capsys):
    _, _, call = published(name)
    assert call() == 0
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "raw" / file).write_text(text)
    capsys.readouterr()
    assert call() == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_network(published, tmp_path, capsys):
    _, server, call = published("food101")
    server.url = "http://127.0.0.1:9"
    assert call() == 2
    error = capsys.readouterr().err
    assert "cannot be downloaded" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_and_then_the_same_command(published, tmp_path, capsys, monkeypatch):
    tree, _, call = published("pets")
    copies, copy = [], shutil.copyfile

    def stop_at_the_third(*paths):
        if len(copies) == 3:
            raise KeyboardInterrupt
        copies.append(copy(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", stop_at_the_third)
        assert call() == 130
    assert capsys.readouterr().err == "neq: stopped; run the same command again to continue\n"
    assert content(tmp_path / "out") == {}
    assert call() == 0
    assert content(tmp_path / "out") == ordered(tree)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["copyfile", "mkdir"])
def test_a_disk_that_does_not_take_it(code, where, published, tmp_path, capsys, monkeypatch):
    tree, _, call = published("pets")

    def refuse(*paths, **_):
        raise OSError(code, os.strerror(code), str(paths[-1]))

    with monkeypatch.context() as patch:
        patch.setattr(*((shutil, "copyfile", refuse) if where == "copyfile" else (Path, "mkdir", refuse)))
        assert call() == 2
    error = capsys.readouterr().err
    assert os.strerror(code) in error
    assert error.count("\n") == 1
    assert call() == 0
    assert content(tmp_path / "out") == ordered(tree)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--validation", "1"], "--validation is 1.0; a share from 0"),
        (["--validation", "-0.1"], "--validation is -0.1"),
        (["--validation", "nan"], "--validation is nan"),
        (["--validation", "much"], "invalid float value: 'much'; see --help"),
        (["--vaildation", "0.2"], "unrecognized arguments: --vaildation 0.2; see --help"),
        (["--raw", "out/raw"], "lies in --out"),
        (["--raw", "out"], "lies in --out"),
        (["--raw", os.devnull], "cannot be read or written"),
        (["--out", os.devnull], "is a file; give a folder"),
        (["--out", f"{os.devnull}/x"], "cannot be read or written"),
    ],
)
def test_wrong_flags_end_with_one_line(flags, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = ["--raw", "raw", "--out", "out"]
    assert run_script(pets.ABOUT, lambda _: SETS["pets"], None, [*folders, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_both_folders_are_needed(capsys):
    assert run_script(pets.ABOUT, lambda _: SETS["pets"], None, ["--raw", "x"]) == 2
    assert "required: --out; see --help" in capsys.readouterr().err


@EVERY
def test_help_states_source_and_licence(name, monkeypatch, capsys):
    script = str(ROOT / "train_test_split" / f"{name}.py")
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "source " in printed
    assert "licence " in printed


def test_vww_of_2017_by_segmentation_and_small(published, tmp_path, capsys):
    published("vww")
    folder = tmp_path / "published"
    tree = vww_files(folder, 2017)
    with serving(folder) as server:
        arguments = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--year", "2017"]
        arguments += ["--area", "segment", "--small-side", "50"]

        def call(*flags):
            def describe(parsed):
                return miniature(vww.describe(parsed), folder, server.url, tree)

            return run_script(vww.ABOUT, describe, vww.add_flags, [*arguments, *flags])

        assert call() == 0
        found = content(tmp_path / "out")
        assert found["train/1.person"] == [f"{n:012d}.jpg" for n in (0, 1, 2, 101, 102)]
        assert found["test/1.person"] == [f"{100:012d}.jpg"]
        with Image.open(tmp_path / "out/test/1.person" / f"{100:012d}.jpg") as image:
            assert image.size == (50, 60)
        assert call("--small-side", "60") == 2
        assert "a finished split with small_side 50, but small_side 60" in capsys.readouterr().err
        assert call("--small-side", "0") == 2
        assert call("--link") == 2
        assert "a link cannot be shrunk" in capsys.readouterr().err
