import multiprocessing
import os
import pickle
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neq.config.schema import DataProvider
from neq.data.caching import CachePlan, DiskCache, DiskQuota, MemoryCache, plan_cache
from neq.data.sources import Source, source_of_arrays, source_of_files
from neq.utils.seeds import generator
from tests.data.miniatures import jpeg

# Images are 3 x 5 x (4 + number).
SIZES = [3 * 5 * (4 + number) for number in range(10)]


class Counted:
    """Gives images and counts how often."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __call__(self, number: int) -> torch.Tensor:
        self.read.append(number)
        return drawn(number)


def drawn(number: int) -> torch.Tensor:
    """As decoding gives it: uint8 [3, 5, 4 + number] that lies in memory as [5, 4 + number, 3]."""
    shape = (5, 4 + number, 3)
    return torch.randint(256, shape, generator=generator(number), dtype=torch.uint8).permute(2, 0, 1)


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal also in how they lie in memory: resizing may depend on that."""
    return torch.equal(first, second) and first.stride() == second.stride()


def test_memory_keeps_what_fits_and_reads_the_rest() -> None:
    read = Counted()
    cache = MemoryCache(read, range(5), limit=sum(SIZES[:3]))
    assert cache.size == sum(SIZES[:3])
    read.read.clear()
    assert all(same(cache(number), drawn(number)) for number in range(10))
    assert read.read == [3, 4, 5, 6, 7, 8, 9]
    copy = pickle.loads(pickle.dumps(MemoryCache(drawn, [1], 10**6)))
    assert same(copy(1), drawn(1))


def test_disk_keeps_what_was_read(tmp_path: Path) -> None:
    read = Counted()
    cache = DiskCache(read, tmp_path / "c", DiskQuota(10**6))
    for _ in range(2):
        assert all(same(cache(number), drawn(number)) for number in range(5))
    assert read.read == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == list("01234")
    copy = pickle.loads(pickle.dumps(DiskCache(drawn, tmp_path / "c", DiskQuota(0))))
    assert same(copy(3), drawn(3))


def test_disk_stops_at_its_room(tmp_path: Path) -> None:
    read = Counted()
    cache = DiskCache(read, tmp_path, DiskQuota(sum(SIZES[:2]) + 40))
    for number in (0, 1, 2, 0, 1, 2):
        cache(number)
    assert read.read == [0, 1, 2, 2]


@pytest.mark.parametrize("damage", ["empty", "header", "cut", "zeros", "one bit", "longer", "folder"])
def test_a_damaged_file_is_read_and_written_anew(tmp_path: Path, damage: str) -> None:
    DiskCache(drawn, tmp_path, DiskQuota(10**6))(2)
    path = tmp_path / "2"
    content = bytearray(path.read_bytes())
    content[40] ^= damage == "one bit"
    changed = {"empty": b"", "header": bytes(content[:10]), "cut": bytes(content[:-1]), "zeros": bytes(400)}
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(changed.get(damage, bytes(content) + b"x" * (damage == "longer")))
    read = Counted()
    cache = DiskCache(read, tmp_path, DiskQuota(10**6))
    assert same(cache(2), drawn(2))
    assert same(cache(2), drawn(2))
    assert read.read == ([2, 2] if damage == "folder" else [2])
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    read = Counted()
    cache = DiskCache(read, tmp_path / "file" / "c", DiskQuota(10**6))
    assert same(cache(2), drawn(2))
    assert same(cache(2), drawn(2))
    assert read.read == [2, 2]


def read_all(folder: Path, numbers: list[int]) -> None:
    cache = DiskCache(drawn, folder, DiskQuota(10**9))
    for number in numbers:
        assert same(cache(number), drawn(number))


def test_processes_share_a_folder(tmp_path: Path) -> None:
    orders = [np.random.default_rng(seed).permutation(200).tolist() for seed in range(4)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=read_all, args=(tmp_path, order)) for order in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(list(tmp_path.iterdir())) == 200
    read_all(tmp_path, list(range(200)))


def photos(folder: Path, count: int = 8) -> Source:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(jpeg(number, (24, 20)))
    return source_of_files("a", {"train": [(str(folder / f"{number}.jpg"), 0) for number in range(count)]})


PARTS = {"train": np.arange(5), "validation": np.array([5]), "velocity": np.array([6]), "test": np.array([7])}


def planned(source: Source, augmented: bool = True, **settings: object) -> CachePlan:
    return plan_cache(DataProvider(**{"image_size": 8, **settings}), source, PARTS, augmented)


def test_what_is_cached(tmp_path: Path) -> None:
    source = photos(tmp_path / "p")
    plan = planned(source, cache="memory")
    assert plan.decoded.tolist() == [0, 1, 2, 3, 4]
    assert plan.resized.tolist() == [5, 6, 7]
    assert plan.expected == 5 * 3 * 24 * 20 + 3 * 3 * 64
    plain = planned(source, augmented=False, cache="memory")
    assert plain.decoded.tolist() == []
    assert plain.resized.tolist() == list(range(8))
    held = source_of_arrays("a", {"train": (np.zeros((8, 4, 4), np.uint8), np.zeros(8))})
    assert planned(held, cache="memory").decoded.tolist() == []


def test_small_sets_are_kept_in_memory_without_being_asked(tmp_path: Path) -> None:
    source = photos(tmp_path / "p")
    assert planned(source).kind == "memory"
    assert planned(source, image_size=4096, augmented=False).kind == "none"
    assert planned(source, cache_gib=1e-7).kind == "none"
    assert planned(source, cache="none").kind == "none"
    held = source_of_arrays("a", {"train": (np.zeros((8, 4, 4), np.uint8), np.zeros(8))})
    assert planned(held).kind == "memory"


def test_what_the_user_is_told(tmp_path: Path) -> None:
    source = photos(tmp_path / "p")
    assert planned(source, cache="memory").notes == ()
    assert planned(source, cache="disk", image_size=4096).notes == ()
    (note,) = planned(source, cache="disk", image_size=4096, cache_gib=0.1).notes
    assert note == "cache disk: the images take about 0.1 GiB, of which cache_gib keeps 0.1"
    held = source_of_arrays("a", {"train": (np.zeros((8, 4, 4), np.uint8), np.zeros(8))})
    assert "held in memory" in planned(held, cache="disk").notes[0]
    assert planned(held, cache="disk").kind == "none"


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
@pytest.mark.parametrize("gib", [4, 2e-6])
def test_a_plan_reads_the_same_whatever_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, gib: float
) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    source = photos(tmp_path / "p")
    plan = planned(source, cache=kind, cache_gib=gib)
    for _ in range(2):
        decoded, resized = plan.build(source, partial(halved, source), "halved", n_worker=1)
        for number in range(8):
            assert same(decoded(number), source.image(number))
            assert torch.equal(resized(number), halved(source, number))
    sizes = [path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert (sum(sizes) > 0) is (kind == "disk")
    assert sum(sizes) <= gib * 2**30


def halved(source: Source, number: int) -> torch.Tensor:
    return source.image(number)[:, ::2, ::2]


def filled(folder: Path, monkeypatch: pytest.MonkeyPatch, gib: float = 4) -> Path:
    """The folder in the cache of a set, after all of it was read."""
    source = photos(folder) if not folder.exists() else None
    source = source or source_of_files(
        "a", {"train": [(str(path), 0) for path in sorted(folder.iterdir(), key=lambda path: int(path.stem))]}
    )
    plan = planned(source, cache="disk", cache_gib=gib)
    decoded, _ = plan.build(source, source.image, "x", 0)
    assert isinstance(decoded, DiskCache)
    for number in range(8):
        decoded(number)
    return decoded.folder.parent


def test_a_changed_image_is_another_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    first = filled(tmp_path / "p", monkeypatch)
    assert filled(tmp_path / "p", monkeypatch) == first
    path = tmp_path / "p" / "3.jpg"
    before = path.stat()
    Image.new("RGB", (24, 20), (1, 2, 3)).save(path)
    os.truncate(path, before.st_size)  # of the same size
    assert filled(tmp_path / "p", monkeypatch, gib=4e-9) != first


def test_sets_not_used_for_longest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    gib = 3 * 8 * 3 * 24 * 20 / 2**30  # room for two sets and what belongs to them, not for three
    first, second = filled(tmp_path / "a", monkeypatch, gib), filled(tmp_path / "b", monkeypatch, gib)
    os.utime(first, (time.time() - 50, time.time() - 50))
    os.utime(second, (time.time() - 99, time.time() - 99))
    assert filled(tmp_path / "a", monkeypatch, gib) == first  # counts as a use
    third = filled(tmp_path / "c", monkeypatch, gib)
    assert first.exists()
    assert third.exists()
    filled(tmp_path / "d", monkeypatch, gib)
    assert not second.exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    folder = filled(tmp_path / "p", monkeypatch) / "decoded"
    old, new = folder / ".1.99.tmp", folder / ".2.99.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    filled(tmp_path / "p", monkeypatch)
    assert not old.exists()
    assert new.exists()
