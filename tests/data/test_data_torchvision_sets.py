import multiprocessing
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from neq.config.schema import DataProvider
from neq.data.opening import SOURCES
from neq.data.splits import split
from neq.utils.errors import UserError
from tests.data.miniatures import CLASSES, NAMES, TEST, TRAIN, Server, jpeg, offer, serving

# Their images are files.
FILES = ("flowers", "food", "pets")
# The entries that a whole copy has in the data folder, whatever else lies there.
TOPS = {
    "c10": {"cifar-10-batches-py"},
    "c100": {"cifar-100-python"},
    "flowers": {"flowers-102"},
    "food": {"food-101"},
    "pets": {"oxford-iiit-pet"},
    "svhn": {"train_32x32.mat", "test_32x32.mat"},
    "mnist": {"MNIST"},
    "usps": {"usps.bz2", "usps.t.bz2"},
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "web").mkdir()
    with serving(tmp_path / "web") as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def visible(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_downloaded_once(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    source = SOURCES[name](str(root))
    assert len(source.classes) == CLASSES[name]
    assert len(set(source.classes)) == CLASSES[name]
    counts = {part: len(indices) for part, indices in source.official.items()}
    if name == "flowers":
        assert counts == {"train": 102, "validation": 102, "test": 204}
    else:
        assert counts == {"train": TRAIN * CLASSES[name], "test": TEST * CLASSES[name]}
    assert set(source.labels.tolist()) == set(range(CLASSES[name]))
    assert source.fingerprint is None
    for index in (0, len(source.labels) - 1):
        image = source.image(index)
        assert image.shape[0] == 3
        assert image.min() >= 0
        if name not in FILES:  # the miniatures' first pixel says their label
            assert image[0, 0, 0] == source.labels[index]
    assert visible(root) == TOPS[name]
    assert not list(root.rglob("*.gz")) + list(root.rglob("*.tgz"))
    asked = len(server.asked)
    assert asked > 0
    again = SOURCES[name](str(root))
    assert len(server.asked) == asked
    assert np.array_equal(again.labels, source.labels)
    assert (again.image(3) == source.image(3)).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_in_two_splits(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    source = SOURCES[name](str(root))
    for seed in (0, 1):
        parts = split(source, DataProvider(velocity_images=4), seed)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(len(source.labels)))
        assert len(parts["velocity"]) == 4
        if source.files:
            names = [{source.files[index] for index in part} for part in parts.values()]
            assert len(set.union(*names)) == sum(map(len, names)) == len(source.files)
    if name == "flowers":
        held_out = np.concatenate([parts["validation"], parts["velocity"]])
        assert sorted(held_out) == source.official["validation"].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_archives_that_the_user_put_there_need_no_network(
    name: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, root, "http://127.0.0.1:9", monkeypatch)  # nobody listens there
    put = visible(root)
    source = SOURCES[name](str(root))
    assert len(source.classes) == CLASSES[name]
    assert visible(root) == TOPS[name] | put


@pytest.mark.parametrize("name", NAMES)
def test_without_network_one_line_says_what_to_put_where(
    name: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "elsewhere", "http://127.0.0.1:9", monkeypatch)
    with pytest.raises(UserError) as caught:
        SOURCES[name](str(root))
    message = str(caught.value)
    assert f"data set {name} is not in '{root}' and cannot be downloaded" in message
    assert "http" in message.split("put ")[1]
    assert len(message.splitlines()) == 1
    assert visible(root) == set()
    assert not list(root.glob(".*.part"))


@pytest.mark.parametrize("name", NAMES)
def test_half_a_download_never_counts(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    server.cut = 100
    for _ in range(2):
        with pytest.raises(UserError, match="cannot be downloaded"):
            SOURCES[name](str(root))
        assert visible(root) == set()
    server.cut = None
    assert len(SOURCES[name](str(root)).classes) == CLASSES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_process_killed_while_unpacking_leaves_no_data_set(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    stage = root / f".{name}.part"
    for folder in (
        "flowers-102/jpg",
        "food-101/images",
        "food-101/meta",
        "oxford-iiit-pet/images",
        "MNIST/raw",
    ):
        (stage / folder).mkdir(parents=True)
    (stage / "oxford-iiit-pet/annotations").mkdir()
    (stage / "usps.bz2").write_bytes(b"half")
    (stage / "flowers-102/jpg/image_00001.jpg").write_bytes(b"half")
    (stage / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"half")
    source = SOURCES[name](str(root))
    assert len(source.classes) == CLASSES[name]
    assert source.image(0).shape[0] == 3
    assert not stage.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_copy_is_refused_and_told_apart(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    SOURCES[name](str(root))
    if name in FILES:
        next(path for path in sorted(root.rglob("*.jpg"))).unlink()
    else:
        victim = max(
            (path for path in root.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
        )
        victim.write_bytes(victim.read_bytes()[:-200])
    with pytest.raises(UserError) as caught:
        SOURCES[name](str(root))
    message = str(caught.value)
    assert "incomplete or damaged" in message
    assert f"remove {' and '.join(sorted(TOPS[name], reverse=name == 'svhn'))} there" in message
    assert len(message.splitlines()) == 1
    if name in FILES:
        assert "1 of " in message


def test_a_part_that_is_missing_is_never_mixed_with_new_ones(
    tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer("food", tmp_path / "web", server.url, monkeypatch)
    (root / "food-101" / "images" / "cake").mkdir(parents=True)
    with pytest.raises(UserError, match=r"food-101/meta is missing\); remove food-101"):
        SOURCES["food"](str(root))
    assert server.asked == []


@pytest.mark.parametrize("name", ["svhn", "usps", "mnist"])
def test_single_files_that_are_missing_are_fetched(
    name: str, tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, tmp_path / "web", server.url, monkeypatch)
    SOURCES[name](str(root))
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    files[0].unlink()
    SOURCES[name](str(root))
    assert files[0].exists()


@pytest.mark.parametrize("name", FILES)
def test_prepared_image_folders_are_read_instead(name: str, root: Path) -> None:
    for place in (root, root / name):
        for part in ("train", "val", "test"):
            for number, kind in enumerate(("001.ash", "002.oak")):
                (place / part / kind).mkdir(parents=True)
                (place / part / kind / "1.jpg").write_bytes(jpeg(number))
    for given in (root, root / name):
        source = SOURCES[name](str(given))
        assert source.classes == ("001.ash", "002.oak")
        assert sorted(source.official) == ["test", "train", "validation"]
        assert source.fingerprint is not None


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    offer("usps", tmp_path / "cache" / "data", "http://127.0.0.1:9", monkeypatch)
    assert len(SOURCES["usps"](None).labels) == 10 * (TRAIN + TEST)


def test_two_processes_download_once(
    tmp_path: Path, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer("mnist", tmp_path / "web", server.url, monkeypatch)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=SOURCES["mnist"], args=(str(root),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    archives = [path for path in server.asked if path.endswith("train-images-idx3-ubyte.gz")]
    assert len(archives) == 2  # torchvision asks once for redirections, once for the file


def test_a_server_that_falls_silent_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        offer("usps", root.parent, f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        monkeypatch.setattr("neq.data.downloading._TIMEOUT_S", 0.2)
        with pytest.raises(UserError, match=r"usps is not in .* \(timed out\)"):
            SOURCES["usps"](str(root))
    assert socket.getdefaulttimeout() is None
