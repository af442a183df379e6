"""Tiny copies of the published data sets, with their structure, and a server that offers them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.server
import io
import json
import pickle
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

# Images of each class in training (of flowers also in validation) and in test.
TRAIN, TEST = 8, 3
NAMES = ("c10", "c100", "flowers", "food", "pets", "svhn", "mnist", "usps")
CLASSES = {"c10": 10, "c100": 100, "flowers": 102, "food": 4, "pets": 3, "svhn": 10, "mnist": 10, "usps": 10}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def jpeg(seed: int, size: tuple[int, int] = (24, 20)) -> bytes:
    """A JPEG of one colour and some noise."""
    drawn = np.random.default_rng(seed).integers(0, 60, (size[1], size[0], 3)) + seed % 190
    buffer = io.BytesIO()
    Image.fromarray(drawn.astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tgz(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def labels_of(classes: int, each: int) -> np.ndarray:
    return np.tile(np.arange(classes), each)


def offer(name: str, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the miniature archives of a set into a folder, and has torchvision look for them at a URL."""
    folder.mkdir(parents=True, exist_ok=True)
    globals()[f"_offer_{name}"](folder, url, monkeypatch)


def _cifar(folder: Path, url: str, patch: pytest.MonkeyPatch, kind: Any, fine: bool) -> None:
    classes = 100 if fine else 10
    lists: dict[str, list[tuple[str, str]]] = {}
    members = {}
    for attribute, each in (("train_list", TRAIN), ("test_list", TEST)):
        names = [name for name, _ in getattr(kind, attribute)]
        every = labels_of(classes, each)
        lists[attribute] = []
        for name, part in zip(names, np.array_split(every, len(names)), strict=True):
            pixels = np.random.default_rng(len(lists)).integers(0, 256, (len(part), 3072), dtype=np.uint8)
            pixels[:, 0] = part
            entry = {"data": pixels, "fine_labels" if fine else "labels": part.tolist()}
            members[f"{kind.base_folder}/{name}"] = pickle.dumps(entry)
            lists[attribute].append((name, hashlib.md5(pickle.dumps(entry)).hexdigest()))
    content = pickle.dumps({kind.meta["key"]: [f"class{number}" for number in range(classes)]})
    members[f"{kind.base_folder}/{kind.meta['filename']}"] = content
    patch.setattr(kind, "meta", {**kind.meta, "md5": hashlib.md5(content).hexdigest()})
    tgz(folder / kind.filename, members)
    for attribute, value in lists.items():
        patch.setattr(kind, attribute, value)
    patch.setattr(kind, "url", f"{url}/{kind.filename}")
    patch.setattr(kind, "tgz_md5", md5(folder / kind.filename))


def _offer_c10(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    _cifar(folder, url, patch, datasets.CIFAR10, fine=False)


def _offer_c100(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    _cifar(folder, url, patch, datasets.CIFAR100, fine=True)


def _offer_flowers(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    # One image of each class in training and validation, two in test.
    labels = np.concatenate([labels_of(102, 1), labels_of(102, 1), labels_of(102, 2)]) + 1
    ids = np.arange(1, len(labels) + 1)
    savemat(folder / "imagelabels.mat", {"labels": labels})
    savemat(folder / "setid.mat", {"trnid": ids[:102], "valid": ids[102:204], "tstid": ids[204:]})
    tgz(folder / "102flowers.tgz", {f"jpg/image_{i:05d}.jpg": jpeg(int(i), (8, 8)) for i in ids})
    files = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
    patch.setattr(datasets.Flowers102, "_download_url_prefix", f"{url}/")
    patch.setattr(
        datasets.Flowers102, "_file_dict", {key: (name, md5(folder / name)) for key, name in files.items()}
    )


def _offer_food(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    members: dict[str, bytes] = {}
    for split, each in (("train", TRAIN), ("test", TEST)):
        listed = {
            name: [f"{name}/{split}{number}" for number in range(each)]
            for name in ("apple_pie", "baklava", "cake", "dumplings")
        }
        members[f"food-101/meta/{split}.json"] = json.dumps(listed).encode()
        for seed, name in enumerate(name for names in listed.values() for name in names):
            members[f"food-101/images/{name}.jpg"] = jpeg(seed + 100 * each)
    tgz(folder / "food-101.tar.gz", members)
    patch.setattr(datasets.Food101, "_URL", f"{url}/food-101.tar.gz")
    patch.setattr(datasets.Food101, "_MD5", md5(folder / "food-101.tar.gz"))


def _offer_pets(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    images, lists = {}, {}
    for split, each in (("trainval", TRAIN), ("test", TEST)):
        lines = []
        # A capital letter marks a cat, and names of two words share their first.
        for label, name in enumerate(("Abyssinian", "great_pyrenees", "great_dane"), start=1):
            for number in range(each):
                image = f"{name}_{split == 'test':d}{number}"
                images[f"images/{image}.jpg"] = jpeg(100 * each + 10 * label + number)
                lines.append(f"{image} {label} {2 - name.istitle()} 1")
        lists[f"annotations/{split}.txt"] = "\n".join(lines).encode() + b"\n"
    tgz(folder / "images.tar.gz", images)
    tgz(folder / "annotations.tar.gz", lists)
    names = ("images.tar.gz", "annotations.tar.gz")
    resources = tuple((f"{url}/{name}", md5(folder / name)) for name in names)
    patch.setattr(datasets.OxfordIIITPet, "_RESOURCES", resources)


def _offer_svhn(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    offered = {}
    for seed, (split, each) in enumerate((("train", TRAIN), ("test", TEST))):
        labels, name = labels_of(10, each), f"{split}_32x32.mat"
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        pixels[0, 0, 0] = labels
        savemat(folder / name, {"X": pixels, "y": np.where(labels == 0, 10, labels)[:, None]})
        offered[split] = [f"{url}/{name}", name, md5(folder / name)]
    patch.setattr(datasets.SVHN, "split_list", offered)


def _offer_mnist(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    resources = []
    for seed, (prefix, each) in enumerate((("train", TRAIN), ("t10k", TEST))):
        labels = labels_of(10, each).astype(np.uint8)
        pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        pixels[:, 0, 0] = labels
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            path = folder / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
            resources.append((path.name, md5(path)))
    patch.setattr(datasets.MNIST, "mirrors", [f"{url}/"])
    patch.setattr(datasets.MNIST, "resources", resources)


def _offer_usps(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    offered = {}
    for seed, (split, name, each) in enumerate((("train", "usps.bz2", TRAIN), ("test", "usps.t.bz2", TEST))):
        labels = labels_of(10, each)
        values = np.random.default_rng(seed).uniform(-1, 1, (len(labels), 256)).round(3)
        values[:, 0] = (labels + 0.5) / 127.5 - 1  # becomes the label, whichever way it is rounded
        lines = [
            f"{label + 1} " + " ".join(f"{number}:{value}" for number, value in enumerate(row, start=1))
            for label, row in zip(labels, values, strict=True)
        ]
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode() + b"\n"))
        offered[split] = [f"{url}/{name}", name, md5(folder / name)]
    patch.setattr(datasets.USPS, "split_list", offered)


class Server:
    """A file server on the loopback; `asked` lists the paths, `cut` says how many bytes of a file arrive."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.cut: int | None = None


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serves a folder."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: server.cut])

        def log_message(self, format: str, *arguments: Any) -> None:
            """Silence."""

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
