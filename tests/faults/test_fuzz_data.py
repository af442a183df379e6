"""Images, numpy archives and archives of data sets, damaged and hostile: one line, and nothing written."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from neq.config import DataProvider, dataset
from neq.data import open_data
from neq.data.decoding import read_image, why_unreadable
from neq.data.image_folder import open_image_folder
from neq.data.npz import open_npz
from neq.data.published.lists import read_json, rows
from neq.data.published.unpack import unpack
from tests.data.image_files import exif_block, png, with_exif
from tests.faults.hostile import content_of, damaged, refusal, refused, run_refused
from tests.faults.test_fuzz_weights import Malicious

pytestmark = pytest.mark.slow

SILENT = Console(file=io.StringIO())
FORMATS = {
    "jpg": {},
    "png": {},
    "bmp": {},
    "ppm": {},
    "tif": {"compression": "tiff_lzw"},
    "webp": {},
    "gif": {},
}


def image_of(ending: str, side: int = 40) -> bytes:
    """A photo-like image as a file."""
    y, x = np.mgrid[:side, :side]
    pixels = np.stack([x * 5, y * 5, (x * y) % 251], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    format = {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper())
    Image.fromarray(pixels).save(file, format, **FORMATS[ending])
    return file.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_damaged_images(place, ending):
    path, refusals = place / f"image.{ending}", 0
    for broken in damaged(image_of(ending), 60, len(ending)):
        path.write_bytes(broken)
        line = refusal(read_image, str(path))
        reason = why_unreadable(str(path))
        assert (line is None) == (reason is None)
        assert line is None or path.name in line
        refusals += line is not None
    assert refusals > 5


def exif_blocks(count: int, seed: int) -> Iterator[bytes]:
    """EXIF blocks of a photo to be turned, with tags of any type, count and value, some of them damaged."""
    rng = random.Random(seed)
    tags = [0, 0x100, 0x103, 0x10E, 0x112, 0x11A, 0x128, 0x132, 0x213, 0x2BC, 0x8769, 0x8825, 0xA005, 0xFFFF]
    for at in range(count):
        odd = [
            (rng.choice(tags), rng.choice([*range(14), 16, 99]), rng.choice([0, 1, 1, 2, 8, 2**31]), value)
            for value in (rng.randbytes(4), bytes([6, 0, 0, 0]), bytes(4))[: rng.randrange(4)]
        ]
        block = exif_block((0x112, 3, 1, b"\x06\0\0\0"), *odd) + rng.randbytes(rng.randrange(30))
        yield block if at % 3 else next(damaged(block, 1, at))


def test_photos_with_exif_blocks_of_any_kind_are_read(place):
    pixels = image_of("jpg", 24)
    path = place / "exif.jpg"
    path.write_bytes(pixels)
    plain = read_image(str(path))
    sides = {tuple(plain.rot90(turn, (1, 2)).flatten().tolist()) for turn in range(4)}
    sides |= {tuple(plain.flip(2).rot90(turn, (1, 2)).flatten().tolist()) for turn in range(4)}
    turned = 0
    for block in exif_blocks(400, 7):
        path.write_bytes(with_exif(pixels, block))
        assert why_unreadable(str(path)) is None
        image = read_image(str(path))
        assert tuple(image.flatten().tolist()) in sides
        turned += not torch.equal(image, plain)
    assert turned > 100


NAMES = ["train", "Test", "VAL", "validation", "cat", "dog", "a\nb", ".hidden", "\udcff", "x.jpg", "é"]


def plant(folder: Path, rng: random.Random, depth: int) -> None:
    """A random tree of folders, images, empty and other files, pipes and links, some of them in a circle."""
    for name in rng.sample(NAMES, rng.randrange(1, 5)):
        path, kind = folder / name, rng.randrange(8)
        if depth and kind < 6:
            path.mkdir()
            plant(path, rng, depth - 1)
        elif kind < 5:
            path.with_suffix(rng.choice([".png", ".PNG", ".jfif"])).write_bytes(image_of("png", 8))
        elif kind == 5:
            path.with_suffix(rng.choice([".txt", ".jpg", ".heic"])).touch()
        elif kind == 6:
            os.mkfifo(path.with_suffix(".jpg"))
        else:
            path.symlink_to(rng.choice([folder, folder.parent, folder / "gone"]))


def test_folders_of_any_layout(tmp_path):
    found = []
    for seed in range(60):
        root = tmp_path / str(seed) / "root"
        root.mkdir(parents=True)
        plant(root, random.Random(seed), 3)
        before = content_of(root)

        def opened(root=root):
            source = open_image_folder(str(root))
            assert all(note.isprintable() for note in source.notes)
            assert all(os.path.isfile(file) or os.path.islink(file) for file in source.files)
            assert len(set(source.files)) == len(source.labels)
            found.append(root)

        line = refusal(opened)
        assert line is None or str(root) in line
        assert content_of(root) == before
    assert 5 < len(found) < 55


def test_a_run_on_folders_without_a_layout_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, random.Random(0), 1)
    run_refused(capsys, tmp_path, ["train", "--dataset", "image_folder", "--root", "."])


def text_chunk(size: int) -> bytes:
    content = b"comment\0\0" + zlib.compress(bytes(size))
    return (
        struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    )


HOSTILE_IMAGES = {
    "empty": b"",
    "text": b"not an image",
    "bomb": png(60_000, 60_000, zlib.compress(bytes(10**6))),
    "bomb in one row": png(2**31 - 1, 1, zlib.compress(bytes(10**6))),
    "no pixels": png(0, 0),
    "text bomb": png(1, 1, zlib.compress(bytes(4)), text_chunk(10**8)),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n",
    "PDF": b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "bitmap bomb": b"BM"
    + struct.pack("<IHHI", 54, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 10**5, 10**5, 1, 24, *[0] * 6),
    "zip": b"PK\x05\x06" + bytes(18),
    "pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(HOSTILE_IMAGES))
def test_hostile_images(tmp_path, kind):
    path = tmp_path / "hostile.jpg"
    path.write_bytes(HOSTILE_IMAGES[kind])
    refused(read_image, str(path), named="hostile.jpg")
    assert why_unreadable(str(path))


def test_no_other_program_is_started_for_an_image(tmp_path, monkeypatch):
    """PIL reads EPS with Ghostscript, whatever the ending of the file."""
    from PIL import EpsImagePlugin

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: started.append(args))
    path = tmp_path / "photo.jpg"
    path.write_bytes(HOSTILE_IMAGES["EPS"])
    refused(read_image, str(path), named="photo.jpg")
    assert not started
    with Image.open(path) as image:
        assert image.format == "EPS"  # else this test would show nothing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of image folders, opened once before its files are damaged."""
    root = tmp_path_factory.mktemp("set")
    for split, count in (("train", 12), ("test", 3)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for at in range(count):
                (root / split / label / f"{at}.png").write_bytes(image_of("png", 24 + at))
    return root


def settings_of(root) -> DataProvider:
    return DataProvider(
        dataset="image_folder", root=str(root), image_size=24, base_batch_size=4, velocity_images=2
    )


def test_an_image_that_is_damaged_after_opening_is_named(folder):
    files = sorted(folder.rglob("*.png"))
    whole = {file: file.read_bytes() for file in files}
    with open_data(settings_of(folder), dataset("image_folder"), 0) as data:
        for at, broken in enumerate(damaged(whole[files[0]], 40, 5)):
            file = files[at % len(files)]
            file.write_bytes(broken)
            for name in ("train", "test"):
                line = refusal(
                    lambda of=name, at=at: list(
                        data.train_batches(at) if of == "train" else data.eval_batches(of)
                    )
                )
                assert line is None or str(file) in line
            file.write_bytes(whole[file])
        assert len(list(data.train_batches(0))) == data.steps_per_epoch


@pytest.mark.filterwarnings("ignore")
def test_a_set_with_a_hostile_image_is_refused_or_goes_without_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = folder / "train" / "cat" / "0.png"
    whole = file.read_bytes()
    before = content_of(tmp_path)
    try:
        for kind, content in HOSTILE_IMAGES.items():
            file.write_bytes(content)
            argv = ["train", "--dataset", "image_folder", "--root", str(folder), "--n_epochs", "1"]
            line = run_refused(capsys, folder, argv, str(file))
            assert "--on_bad_image skip" in line, kind
            settings = settings_of(folder).model_copy(update={"on_bad_image": "skip"})
            with open_data(settings, dataset("image_folder"), 0) as data:
                assert data.skipped == (str(file),)
    finally:
        file.write_bytes(whole)
    assert content_of(tmp_path) == before


X, Y = np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2


def archive_of(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def member(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy file with a header of any kind."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text + data


def of_shape(shape: str) -> bytes:
    """A .npy file of bytes, a few of them, that says it has another shape."""
    return member(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}", bytes(9))


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def bomb(size: int) -> bytes:
    """An archive whose list says that x has so many bytes."""
    content = bytearray(zipped(x=npy(X), y=npy(Y)))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", size)
    return bytes(content)


HOSTILE_ARCHIVES = {
    "objects": archive_of(x=np.array([{}, None], dtype=object), y=Y),
    "labels of objects": zipped(x=npy(X), y=npy(np.array([object] * 8, dtype=object))),
    "classes of objects": zipped(x=npy(X), y=npy(Y), classes=npy(np.array(["a", None], dtype=object))),
    "a pickle": pickle.dumps({"x": 1}),
    "one array": npy(X),
    "huge shape": zipped(x=of_shape("(9999999999, 99, 99)"), y=npy(Y)),
    "overflow": zipped(x=of_shape(f"({2**62},)"), y=npy(Y)),
    "negative": zipped(x=of_shape("(-1, 4, 4)"), y=npy(Y)),
    "code": zipped(x=member("__import__('os').mkdir('trace')"), y=npy(Y)),
    "deep": zipped(x=member("(" * 5000), y=npy(Y)),
    "long": zipped(x=member(" " * 60_000), y=npy(Y)),
    "long version 2": zipped(x=member(" " * 10**7, version=b"\x02\x00"), y=npy(Y)),
    "floats": archive_of(x=X.astype(float), y=Y),
    "no arrays": zipped(),
    "text": zipped(x=b"hello", y=b"world"),
    "structured": archive_of(x=np.zeros(8, dtype=[("a\nb", "u1")]), y=Y),
    "dates": archive_of(x=X, y=np.zeros(8, "datetime64[s]")),
    "strings": archive_of(x=X, y=np.array(list("abcdefgh"))),
    "scalars": archive_of(x=np.uint8(3), y=np.int64(3)),
    "empty": archive_of(x=X[:0], y=Y[:0]),
    "more labels": archive_of(x=X, y=np.arange(9)),
    "complex": archive_of(x=X, y=Y * 1j),
    "names": archive_of(x=X, y=Y, classes=np.array(["a\nb"])),
    "names of two axes": archive_of(x=X, y=Y, classes=np.array([["a", "b"]])),
    "no test split": archive_of(x_train=X, y_train=Y),
    "other sizes": archive_of(x_train=X, y_train=Y, x_test=X[:, :3], y_test=Y),
    "python 2": zipped(x=of_shape("(8L, 4L, 4L)"), y=npy(Y)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(HOSTILE_ARCHIVES))
def test_hostile_numpy_archives(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.npz"
    path.write_bytes(HOSTILE_ARCHIVES[kind])
    refused(open_npz, str(path), named="hostile.npz")
    assert [found.name for found in tmp_path.iterdir()] == ["hostile.npz"]


@pytest.mark.filterwarnings("ignore")
def test_damaged_numpy_archives(place):
    content = archive_of(
        x=np.arange(8 * 16, dtype=np.uint8).reshape(8, 4, 4), y=Y, classes=np.array(["a", "b"])
    )
    path, refusals = place / "damaged.npz", 0
    for broken in damaged(content, 150, 3):
        path.write_bytes(broken)
        line = refusal(open_npz, str(path))
        assert line is None or "damaged.npz" in line
        refusals += line is not None
    assert refusals > 90


@pytest.mark.parametrize("name", ["x", "y", "classes", "x_train"])
def test_nothing_in_a_numpy_archive_is_executed(tmp_path, name):
    bad = np.array([Malicious(tmp_path / "trace")], dtype=object)
    path = tmp_path / "malicious.npz"
    path.write_bytes(zipped(**{"x": npy(X), "y": npy(Y), name: npy(bad)}))
    refused(open_npz, str(path), named="malicious.npz")
    assert not (tmp_path / "trace").exists()
    with np.load(path, allow_pickle=True) as file:  # else this test would show nothing
        assert file[name] is not None
    assert (tmp_path / "trace").exists()


def test_an_archive_that_unpacks_to_more_than_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**31))
    path = tmp_path / "bomb.npz"
    path.write_bytes(bomb(2**32 - 2))
    assert "2,147,483,648 bytes of memory are free" in refused(open_npz, str(path), named="bomb.npz")
    path.write_bytes(zipped(x=npy(X), y=npy(Y)))
    assert refusal(open_npz, str(path)) is None


@pytest.mark.parametrize("kind", ["objects", "huge shape", "names"])
def test_a_run_on_a_hostile_numpy_archive_is_refused(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.npz").write_bytes(HOSTILE_ARCHIVES[kind])
    run_refused(capsys, tmp_path, ["train", "--dataset", "npz:hostile.npz"], "hostile.npz")


@pytest.mark.parametrize(
    "names",
    [["a\nb", "c"], ["\x1b[31m", "c"], ["a" * 10_000, "b"], ["", " "], ["a", "a"], ["../x", "/y"]],
    ids=range(6),
)
def test_class_names_of_any_kind(tmp_path, names):
    """A class with a name that is no name still gives one line, and can be trained."""
    path = tmp_path / "names.npz"
    x = np.zeros((40, 8, 8), np.uint8)
    path.write_bytes(archive_of(x=x, y=np.arange(40) % 2, classes=np.array(names)))
    settings = DataProvider(dataset="npz", root=str(path), image_size=8, base_batch_size=4, velocity_images=2)
    with open_data(settings, dataset("npz"), 0) as data:
        assert len(data.classes) == 2
    path.write_bytes(archive_of(x=x, y=np.zeros(40, int), classes=np.array(names[:1])))
    line = refusal(lambda: open_data(settings, dataset("npz"), 0))
    assert line is not None
    assert "at least 2" in line


FILES = {"set/a.txt": b"a" * 3000, "set/b/c.txt": b"c" * 500, "other.txt": b"no"}


def tar_of(mode: Any = "w:gz", members: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in members:
            tar.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
    return file.getvalue()


def zip_of(**more: bytes) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # a name that stands twice
        for name, content in {**FILES, **more}.items():
            archive.writestr(name, content)
    return file.getvalue()


def info_of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def unpacked(raw, content: bytes) -> str | None:
    """Unpacks into a folder between others, none of which may change; gives the refusal."""
    (raw / "archive").write_bytes(content)
    outside = content_of(raw.parent.parent / "outside")
    line = refusal(unpack, raw / "archive", ("set",), raw, SILENT)
    assert content_of(raw.parent.parent / "outside") == outside
    names = {path.name for path in raw.iterdir()}
    assert names == ({"archive"} if line else {"archive", "set"})
    assert {path.name for path in raw.parent.iterdir()} == {"raw"}
    assert not any(path.is_symlink() or path.is_block_device() or path.is_fifo() for path in raw.rglob("*"))
    if line:
        assert "archive" in line
    else:
        import shutil

        shutil.rmtree(raw / "set")
    return line


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (tmp_path / "in" / "raw").mkdir(parents=True)
    return tmp_path / "in" / "raw"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_damaged_archives(raw, kind):
    content = zip_of() if kind == "zip" else tar_of(kind)
    lines = [unpacked(raw, broken) for broken in damaged(content, 60, len(kind))]
    assert sum(line is not None for line in lines) > 5


OUT = ["../x", "../../outside/secret.txt", "/tmp/neq-x", "set/../../x", "set/b/../../../x", "..", "./../x"]
KINDS = [
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
    tarfile.DIRTYPE,
    b"S",
    b"Z",
]


@pytest.mark.parametrize("name", OUT)
def test_names_that_lead_out(raw, name):
    for content in (tar_of(members=(info_of(name, size=3),)), zip_of(**{name: b"xxx"})):
        line = unpacked(raw, content)
        assert line is not None
        assert "leads out" in line
    unpacked(raw, zip_of(**{name.replace("/", "\\"): b"x"}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("link", ["../../outside/secret.txt", "/etc/passwd", "a.txt", "../../..", ""])
def test_links_and_devices(raw, kind, link):
    first = info_of("set/x", kind, link)
    assert unpacked(raw, tar_of(members=(first,))) is None or kind not in KINDS[:6]
    unpacked(raw, tar_of(members=(first, info_of("set/x/y", size=3))))
    unpacked(raw, tar_of(members=(first, info_of("set/x", size=3))))
    unpacked(raw, tar_of(members=(info_of("set", kind, link), info_of("set/x", size=3))))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "set/a.txt",
        "set/a.txt/x",
        "set/b",
        "set",
        "set/" + "x" * 300,
        "set/a\nb",
        "set/\x1b[31m",
        "set/\udcff",
        "set/",
        "set//x",
        "",
    ],
)
def test_names_that_clash_or_cannot_be(raw, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unpacked(raw, tar_of(members=(info_of(name, size=3),)))
        if name and (name.isprintable() or "\n" in name):
            unpacked(raw, zip_of(**{name: b"xxx"}))


@pytest.mark.parametrize("at", range(25))
def test_damaged_lists(place, at):
    path = place / "list.txt"
    for broken in damaged(b"1 2 three\n4 5 six\n# no\n" * 9, 4, at):
        path.write_bytes(broken)
        line = refusal(rows, path, 3)
        assert line is None or "list.txt" in line
    for broken in damaged(b'{"images": [{"id": 1, "file_name": "a.jpg"}], "x": [[[]]]}', 4, at):
        path.write_bytes(broken)
        line = refusal(read_json, path)
        assert line is None or "list.txt" in line


def test_a_list_that_is_too_deep(tmp_path):
    path = tmp_path / "list.json"
    path.write_bytes(b"[" * 10**6)
    refused(read_json, path, named="list.json")
    assert os.listdir(tmp_path) == ["list.json"]
