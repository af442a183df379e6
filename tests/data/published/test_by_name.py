import dataclasses
import errno
import hashlib
import multiprocessing
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from torchvision import datasets as torchvision_datasets

from neq.config.schema import DataProvider
from neq.data import Source, open_source
from neq.data.published import download, flowers, prepare
from neq.data.published.published_set import SPLIT_FOLDERS
from neq.data.splits import split
from neq.utils.errors import UserError
from tests.data import miniatures
from tests.data.miniatures import TEST, TRAIN, jpeg
from tests.data.published import small_sets
from tests.data.published.layouts import LAYOUTS
from tests.data.published.server import Server, serving

# Their images are files.
FILES = ("flowers", "food", "pets", "cub")
NAMES = (*miniatures.CLASSES, *FILES)
CLASSES = {**miniatures.CLASSES, "flowers": 2, "food": 2, "pets": 3, "cub": 2}
# What a complete copy adds to the data folder.
TOPS = {
    "c10": {"cifar-10-batches-py"},
    "c100": {"cifar-100-python"},
    "flowers": {"flowers-102"},
    "food": {"food-101"},
    "pets": {"oxford-iiit-pet"},
    "cub": {"CUB_200_2011"},
    "svhn": {"train_32x32.mat", "test_32x32.mat"},
    "mnist": {"MNIST"},
    "usps": {"usps.bz2", "usps.t.bz2"},
}
NOBODY = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "web").mkdir()
    with serving(tmp_path / "web") as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def offer(name: str, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in FILES:
        small_sets.offer(name, folder, url, monkeypatch)
    else:
        miniatures.offer(name, folder, url, monkeypatch)


def visible(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.startswith(".")}


def visible_files(root: Path) -> set[str]:
    """Files that are neither hidden nor unfinished downloads, relative to the root."""
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {
        file.as_posix()
        for file in files
        if not any(part.startswith(".") for part in file.parts) and file.suffix != ".part"
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_downloaded_once(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    source = open_source(name, str(root))
    assert len(source.classes) == CLASSES[name]
    assert len(set(source.classes)) == CLASSES[name]
    counts = {part: len(indices) for part, indices in source.official.items()}
    expected = {
        "flowers": {"train": 4, "validation": 4, "test": 6},
        "food": {"train": 6, "test": 2},
        "pets": {"train": 9, "test": 3},
        "cub": {"train": 6, "test": 4},
    }
    assert counts == expected.get(name, {"train": TRAIN * CLASSES[name], "test": TEST * CLASSES[name]})
    assert set(source.labels.tolist()) == set(range(CLASSES[name]))
    assert source.fingerprint is None
    for index in (0, len(source.labels) - 1):
        image = source.image(index)
        assert image.shape[0] == 3
        assert image.min() >= 0
        if name not in FILES:  # the miniatures' first pixel is their label
            assert image[0, 0, 0] == source.labels[index]
    assert visible(root) == TOPS[name]
    assert not list(root.rglob("*.gz")) + list(root.rglob("*.tgz"))
    asked = len(server.asked)
    assert asked > 0
    again = open_source(name, str(root))
    assert len(server.asked) == asked
    assert np.array_equal(again.labels, source.labels)
    assert (again.image(3) == source.image(3)).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_in_two_splits(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    source = open_source(name, str(root))
    count = 1 if name in FILES else 4
    for seed in (0, 1):
        settings = DataProvider(velocity_images=count, validation_percentage=0.34)
        parts = split(source, settings, seed)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(len(source.labels)))
        assert len(parts["velocity"]) == count
        if source.files:
            names = [{source.files[index] for index in part} for part in parts.values()]
            assert len(set.union(*names)) == sum(map(len, names)) == len(source.files)
    if name == "flowers":
        held_out = np.concatenate([parts["validation"], parts["velocity"]])
        assert sorted(held_out) == source.official["validation"].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_archives_that_the_user_put_there_need_no_network(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, root, NOBODY, monkeypatch)
    put = {path: path.read_bytes() for path in root.iterdir()}
    source = open_source(name, str(root))
    assert len(source.classes) == CLASSES[name]
    assert visible(root) == TOPS[name] | {path.name for path in put}
    assert all(path.read_bytes() == content for path, content in put.items())


@pytest.mark.parametrize("name", NAMES)
def test_without_network_one_line_states_the_files_and_their_folder(
    name: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "elsewhere", NOBODY, monkeypatch)
    with pytest.raises(UserError) as caught:
        open_source(name, str(root))
    message = str(caught.value)
    assert f"data set {name} is not in '{root}': {NOBODY}/" in message
    assert "cannot be downloaded" in message
    assert "http" in message.split(") are on ")[1]
    assert all(path.name in message for path in (tmp_path / "elsewhere").iterdir())
    assert f"into '{root}" in message
    assert len(message.splitlines()) == 1
    assert visible_files(root) == set()
    assert not list(root.rglob("*.part"))


@pytest.mark.parametrize("name", NAMES)
def test_half_a_download_never_counts(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    server.ranges = False
    server.cut_after, server.cuts = 100, 1_000_000
    for _ in range(2):
        with pytest.raises(UserError, match="cannot be downloaded"):
            open_source(name, str(root))
        assert visible_files(root) == set()
    server.cuts = 0
    assert len(open_source(name, str(root)).classes) == CLASSES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_lost_connection_is_resumed(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    server.cut_after, server.cuts = 100, 2
    assert len(open_source(name, str(root)).classes) == CLASSES[name]
    assert [wanted for _, wanted in server.asked][:3] == [None, "bytes=100-", "bytes=200-"]


@pytest.mark.parametrize("name", NAMES)
def test_a_process_killed_while_unpacking_leaves_no_data_set(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = tmp_path / "web"
    offer(name, web, server.url, monkeypatch)
    raw = root / {"flowers": "flowers-102", "pets": "oxford-iiit-pet", "mnist": "MNIST/raw"}.get(name, "")
    raw.mkdir(parents=True)
    for path in web.iterdir():
        if path.suffix in (".gz", ".tgz"):
            half = raw / f".{path.name}.unpacking"
            half.mkdir()
            (half / "half.jpg").write_bytes(b"half")
        (raw / f"{path.name}.part").write_bytes(path.read_bytes()[:50])
    source = open_source(name, str(root))
    assert len(source.classes) == CLASSES[name]
    assert source.image(0).shape[0] == 3
    assert not [path for path in root.rglob("*") if path.suffix in (".part", ".unpacking")]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_copy_is_refused_and_told_apart(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    open_source(name, str(root))
    if name in FILES:
        next(path for path in sorted(root.rglob("*.jpg"))).unlink()
    else:
        victim = max(
            (path for path in root.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
        )
        victim.write_bytes(victim.read_bytes()[:-200])
    with pytest.raises(UserError) as caught:
        open_source(name, str(root))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    if name in ("svhn", "usps"):
        assert re.search(r"_32x32.mat' has md5|usps\S*' has md5", message)
        assert "delete it and run again to download it" in message
    else:
        assert "incomplete or damaged" in message
        tops = {"flowers": "jpg", "pets": "images and annotations", "mnist": "train-images-idx3-ubyte and"}
        assert f"remove {tops.get(name, *TOPS[name])}" in message
    if name in FILES:
        assert "1 of " in message


def test_a_part_that_is_missing_is_unpacked_again_and_held_against_the_lists(
    tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer("food", tmp_path / "web", server.url, monkeypatch)
    whole = open_source("food", str(root))
    (root / "food-101/meta/test.json").unlink()
    assert open_source("food", str(root)).files == whole.files
    shutil.rmtree(root / "food-101")
    (root / "food-101/images/waffles").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"food in .* is incomplete or damaged \(8 of 8 .*remove food-101 there"
        ):
            open_source("food", str(root))


@pytest.mark.parametrize("name", ["svhn", "usps", "mnist", "flowers"])
def test_single_files_that_are_missing_are_downloaded(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    open_source(name, str(root))
    files = sorted(
        path for path in root.rglob("*") if path.suffix != ".jpg" and not path.name.startswith(".")
    )
    files = [path for path in files if path.is_file()]
    asked = len(server.asked)
    files[0].unlink()
    open_source(name, str(root))
    assert files[0].exists()
    assert len(server.asked) == asked + 1


@pytest.mark.parametrize("name", FILES)
def test_prepared_image_folders_are_read_instead(name: str, root: Path) -> None:
    for place in (root, root / name):
        for part in ("train", "val", "test"):
            for number, kind in enumerate(("001.ash", "002.oak")):
                (place / part / kind).mkdir(parents=True)
                (place / part / kind / "1.jpg").write_bytes(jpeg(number))
    for given in (root, root / name):
        source = open_source(name, str(given))
        assert source.classes == ("001.ash", "002.oak")
        assert sorted(source.official) == ["test", "train", "validation"]
        assert source.fingerprint is not None


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    offer("usps", tmp_path / "cache" / "data", NOBODY, monkeypatch)
    assert len(open_source("usps", None).labels) == 10 * (TRAIN + TEST)


@pytest.mark.parametrize("name", ["mnist", "pets"])
def test_processes_that_start_at_once_download_once(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=open_source, args=(name, str(root))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    paths = [path for path, _ in server.asked]
    assert sorted(paths) == sorted(f"/{path.name}" for path in (tmp_path / "web").iterdir())


def test_a_server_that_falls_silent_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        offer("usps", root.parent, f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
        with pytest.raises(UserError, match=r"usps is not in .* \(timed out\)"):
            open_source("usps", str(root))
    assert socket.getdefaulttimeout() is None


def test_a_full_disk_is_one_line_and_the_download_continues(
    tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer("pets", tmp_path / "web", server.url, monkeypatch)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("tarfile.TarFile.extract", refuse)
        with pytest.raises(UserError, match=r"pets cannot be stored in '.*' \(No space left on device\)"):
            open_source("pets", str(root))
    assert visible_files(root) == {"oxford-iiit-pet/images.tar.gz"}
    asked = len(server.asked)
    assert len(open_source("pets", str(root)).labels) == 12
    assert [path for path, _ in server.asked[asked:]] == ["/annotations.tar.gz"]


def seen(source: Source, root: Path) -> str:
    """Hash of everything that a run's images and identity depend on."""
    files = [Path(file).relative_to(root).as_posix() for file in source.files]
    official = {name: part.tolist() for name, part in source.official.items()}
    parts = (source.classes, source.labels.tolist(), official, files, source.fingerprint, source.notes)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


# As version 0.1.0, which read these folders by torchvision or by code of their own, saw them.
SEEN = {
    "flowers": "a825f91186706dd1811bde39578ad4375caa224c4a69340598a9e17589a42d1b",
    "food": "27f1f65d18cf6341a2debf0bc0acf2adf16d5fe3865e5d4d5cbd359dcc09f8f6",
    "pets": "2b7014595338200b7835ed195c340a8f2a45fa62ce9079a27ed38f9f09296644",
    "cub": "ba335e50b26240779c5ba202db30699ca124ab4b627889f9a74f748f476f9df7",
    "vww": "ca1a53ec1c32a9092ecbe0167528e5c12bdc4dd32abac565051abb4f7894c8be",
    "vww_minival": "7d3f07cbd6fc58cb590e3fea57dcdc1e6ef3111876d011d31486bf283e64f748",
}


@pytest.fixture
def _unverified_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of the layouts are not the published ones."""
    downloads = tuple(dataclasses.replace(one, md5=None) for one in flowers.FLOWERS.downloads)
    monkeypatch.setattr(flowers, "FLOWERS", dataclasses.replace(flowers.FLOWERS, downloads=downloads))


@pytest.mark.usefixtures("_unverified_lists")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_on_a_users_disk_is_seen_as_before(layout: str, root: Path) -> None:
    LAYOUTS[layout](root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert seen(open_source(layout.partition("_")[0], str(root)), root) == SEEN[layout]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.usefixtures("_unverified_lists")
@pytest.mark.parametrize(
    ("name", "kind", "splits"),
    [
        ("flowers", "Flowers102", {"train": "train", "validation": "val", "test": "test"}),
        ("food", "Food101", {"train": "train", "test": "test"}),
        ("pets", "OxfordIIITPet", {"train": "trainval", "test": "test"}),
    ],
)
def test_images_labels_and_classes_are_those_of_torchvision(
    name: str, kind: str, splits: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS[name](root)
    monkeypatch.setattr(torchvision_datasets.Flowers102, "_check_integrity", lambda self: True)
    source = open_source(name, str(root))
    for part, torchvisions in splits.items():
        reference = getattr(torchvision_datasets, kind)(str(root), split=torchvisions)
        indices = source.official[part]  # type: ignore[index]
        files = getattr(reference, "_image_files", None) or reference._images
        assert [source.files[index] for index in indices] == [str(file) for file in files]
        assert source.labels[indices].tolist() == reference._labels
        assert list(source.classes) == list(reference.classes)


@pytest.mark.parametrize("name", FILES)
def test_files_that_a_script_unpacked_are_opened_by_name(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, tree = small_sets.offer(name, tmp_path / "web", server.url, monkeypatch)
    prepare(published, root / published.folder, tmp_path / "out", Console(quiet=True))
    asked = len(server.asked)
    source = open_source(name, str(root))
    assert len(server.asked) == asked
    for part, indices in source.official.items():
        files = sorted(Path(source.files[index]).name for index in indices)
        folder = SPLIT_FOLDERS[part]
        assert files == sorted(
            file for key, names in tree.items() if key.startswith(folder) for file in names
        )
