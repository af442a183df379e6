"""The data sets that torchvision reads, in miniature: files of the same structure, and their checksums."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

# Images of each class in training and in test.
TRAIN, TEST = 8, 3
CLASSES = {"c10": 10, "c100": 100, "svhn": 10, "mnist": 10, "usps": 10}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def jpeg(seed: int, size: tuple[int, int] = (24, 20)) -> bytes:
    """A JPEG of one colour and some noise."""
    drawn = np.random.default_rng(seed).integers(0, 60, (size[1], size[0], 3)) + seed % 190
    buffer = io.BytesIO()
    Image.fromarray(drawn.astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(path: Path, files: Mapping[str, bytes], mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def labels_of(classes: int, each: int) -> np.ndarray:
    return np.tile(np.arange(classes), each)


def offer(name: str, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the files of a miniature into a folder, as if they were published at a URL."""
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
    tar(folder / kind.filename, members)
    for attribute, value in lists.items():
        patch.setattr(kind, attribute, value)
    patch.setattr(kind, "url", f"{url}/{kind.filename}")
    patch.setattr(kind, "tgz_md5", md5(folder / kind.filename))


def _offer_c10(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    _cifar(folder, url, patch, datasets.CIFAR10, fine=False)


def _offer_c100(folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
    _cifar(folder, url, patch, datasets.CIFAR100, fine=True)


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
