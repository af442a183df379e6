"""The five scripts, each on a miniature of its set, as a user calls them."""

import argparse
import errno
import json
import os
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
from neq.preparing import downloading
from neq.preparing.coco import person_images
from neq.preparing.mark import MARK, read_mark
from neq.preparing.planning import check_counts
from tests.preparing.serving import serving
from tests.preparing.small_sets import MAKERS, content, jpeg, miniature, vww_files
from train_test_split import cub200, flowers102, food101, pets, vww

ROOT = Path(__file__).resolve().parents[2]
EVERY = pytest.mark.parametrize("name", list(MAKERS))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def published(tmp_path):
    """Makes a miniature and serves it: its tree, the server, and a caller of its script."""
    folder = tmp_path / "published"
    folder.mkdir()
    with serving(folder) as server:

        def make(name):
            module, maker = MAKERS[name]
            tree = maker(folder)

            def call(*flags):
                def describe(parsed):
                    whole = module.describe(parsed) if name == "vww" else module.SET
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
    module = MAKERS[name][0]
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
    assert len(server.asked) == asked == len(getattr(module, "SET", vww_set()).downloads)


def vww_set(*flags):
    parser = argparse.ArgumentParser()
    vww.add_flags(parser)
    return vww.describe(parser.parse_args(list(flags)))


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
    (tmp_path / "raw/.lock").unlink()

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("neq.preparing.steps.only_writer", refuse)
    assert call() == 0
    del before[tmp_path / "raw/.lock"]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert not (tmp_path / "raw/.lock").exists()


def test_the_official_numbers():
    assert cub200.SET.counts == {"train": 5994, "test": 5794}
    assert flowers102.SET.counts == {"train": 1020, "val": 1020, "test": 6149}
    assert food101.SET.counts == {"train": 75750, "test": 25250}
    assert pets.SET.counts == {"train": 3680, "test": 3669}
    assert vww_set().counts == {"train": 115228, "test": 8059}


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
    ("module", "lists", "classes"),
    [
        (cub200, full_cub, 200),
        (flowers102, full_flowers, 102),
        (food101, full_food, 101),
        (pets, full_pets, 37),
    ],
)
@pytest.mark.parametrize("missing", [0, 1])
def test_lists_of_full_size_give_the_official_numbers(module, lists, classes, missing, tmp_path):
    lists(tmp_path, missing)
    listed = module.read(tmp_path)
    assert len({image.class_id for image in listed}) == classes
    deviations = check_counts(listed, module.SET.counts)
    assert deviations == ([f"test has {module.SET.counts['test'] - 1:,} images, officially "
                           f"{module.SET.counts['test']:,}"] if missing else [])  # fmt: skip


@EVERY
def test_the_script_itself_refuses_a_miniature_unless_told_otherwise(name, tmp_path):
    """The whole program, with the real checksums and counts, on files that lie in --raw."""
    _, maker = MAKERS[name]
    (tmp_path / "raw").mkdir()
    tree = maker(tmp_path / "raw")
    script = [sys.executable, str(ROOT / "train_test_split" / f"{name}.py"), "--raw", "raw", "--out", "out"]

    def run(*flags):
        return subprocess.run([*script, *flags], cwd=tmp_path, capture_output=True, text=True, check=False)

    refused = run()
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "has md5" in refused.stderr
    assert not (tmp_path / "out").exists()
    taken = run("--unverified")
    assert taken.returncode == 0, taken.stderr
    assert "warning: train has" in taken.stdout
    assert "warning: '" in taken.stdout
    shutil.rmtree(tmp_path / "out")
    again = run()  # what was unpacked unverified is not taken for verified later
    assert again.returncode == 2
    assert "was unpacked from has md5" in again.stderr
    assert run("--unverified").returncode == 0
    assert "not the official numbers" in taken.stdout
    assert content(tmp_path / "out") == ordered(tree)


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
        ("cub200", "CUB_200_2011/classes.txt", "1 001.A\n", "image 6 has class '2'"),
        ("cub200", "CUB_200_2011/images.txt", "1\n", "2 fields are needed"),
        ("food101", "food-101/meta/test.json", "[1]", "is not of the form"),
        ("food101", "food-101/meta/test.json", "{", "cannot be read"),
        ("pets", "annotations/test.txt", "a_1 x 1 1\n", "the class 'x'; a number"),
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


def test_a_matlab_list_of_something_else(published, tmp_path, capsys):
    _, _, call = published("flowers102")
    assert call() == 0
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "raw/setid.mat").write_bytes(b"no matlab")
    assert call("--unverified") == 2
    assert "setid.mat' cannot be read" in capsys.readouterr().err
    savemat(tmp_path / "raw/setid.mat", {"trnid": [1], "valid": [2], "tstid": [500]})
    assert call("--unverified") == 2
    assert "names image 500, but imagelabels.mat has 14 labels" in capsys.readouterr().err


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
    assert capsys.readouterr().err == "neq: stopped; the same command goes on from here\n"
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
    assert run_script(pets.ABOUT, lambda _: pets.SET, None, [*folders, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_both_folders_are_needed(capsys):
    assert run_script(pets.ABOUT, lambda _: pets.SET, None, ["--raw", "x"]) == 2
    assert "required: --out; see --help" in capsys.readouterr().err


@EVERY
def test_help_tells_source_and_licence(name):
    script = ROOT / "train_test_split" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "source " in done.stdout
    assert "licence " in done.stdout


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


def test_the_threshold_is_over_half_a_percent():
    def instances(box, crowd=0):
        return {
            "categories": [{"id": 1, "name": "person"}],
            "images": [{"id": 7, "width": 200, "height": 100}],
            "annotations": [
                {"image_id": 7, "category_id": 1, "bbox": [0, 0, *box], "area": 1e9, "iscrowd": crowd}
            ],
        }

    assert person_images(instances((10, 10)), "box") == set()
    assert person_images(instances((10, 10.001)), "box") == {7}
    assert person_images(instances((10, 11), crowd=1), "box") == {7}
    assert person_images(instances((1, 1)), "segment") == {7}
