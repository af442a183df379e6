"""The data sets that torchvision reads and downloads: c10, c100, flowers, food, pets, svhn, mnist, usps."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from neq.data.downloading import Download
from neq.data.image_folder import open_prepared
from neq.data.sources import Source, Split, file_size, source_of_arrays, source_of_files

_DIGITS = tuple("0123456789")


def _by_train(kind: Callable[..., Any]) -> Callable[[str, bool], list[Any]]:
    """Training and test set of a class with `train=True`."""
    return lambda folder, download: [kind(folder, train=train, download=download) for train in (True, False)]


def _by_split(kind: Callable[..., Any], *splits: str) -> Callable[[str, bool], list[Any]]:
    """One set for each split of a class with `split="train"`."""
    return lambda folder, download: [kind(folder, split=split, download=download) for split in splits]


CIFAR10 = Download(
    "c10",
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    ("cifar-10-batches-py",),
    ("cifar-10-python.tar.gz",),
    _by_train(datasets.CIFAR10),
)
CIFAR100 = Download(
    "c100",
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    ("cifar-100-python",),
    ("cifar-100-python.tar.gz",),
    _by_train(datasets.CIFAR100),
)
FLOWERS = Download(
    "flowers",
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    ("flowers-102/imagelabels.mat", "flowers-102/setid.mat", "flowers-102/jpg"),
    ("flowers-102/102flowers.tgz", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
    _by_split(datasets.Flowers102, "train", "val", "test"),
)
FOOD = Download(
    "food",
    "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    ("food-101/meta", "food-101/images"),
    ("food-101.tar.gz",),
    _by_split(datasets.Food101, "train", "test"),
)
PETS = Download(
    "pets",
    "https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ("oxford-iiit-pet/annotations", "oxford-iiit-pet/images"),
    ("oxford-iiit-pet/images.tar.gz", "oxford-iiit-pet/annotations.tar.gz"),
    _by_split(datasets.OxfordIIITPet, "trainval", "test"),
)
SVHN = Download(
    "svhn",
    "http://ufldl.stanford.edu/housenumbers/",
    ("train_32x32.mat", "test_32x32.mat"),
    ("train_32x32.mat", "test_32x32.mat"),
    _by_split(datasets.SVHN, "train", "test"),
)
_MNIST = tuple(
    f"MNIST/raw/{part}"
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
)
MNIST = Download(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    tuple(f"{part}-ubyte" for part in _MNIST),
    tuple(f"{part}-ubyte.gz" for part in _MNIST),
    _by_train(datasets.MNIST),
)
USPS = Download(
    "usps",
    "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html",
    ("usps.bz2", "usps.t.bz2"),
    (),  # torchvision does not verify a file that is there
    _by_train(datasets.USPS),
)


def open_c10(root: str | None) -> Source:
    """CIFAR-10: 50,000 and 10,000 colour images of 32 x 32."""
    return _cifar(CIFAR10, root)


def open_c100(root: str | None) -> Source:
    """CIFAR-100: 50,000 and 10,000 colour images of 32 x 32, by fine class."""
    return _cifar(CIFAR100, root)


def open_svhn(root: str | None) -> Source:
    """Street View House Numbers: 73,257 and 26,032 colour digits of 32 x 32."""
    _, (train, test) = SVHN.open(root)
    return _arrays(_DIGITS, [(part.data.transpose(0, 2, 3, 1), part.labels) for part in (train, test)])


def open_mnist(root: str | None) -> Source:
    """MNIST: 60,000 and 10,000 grey digits of 28 x 28."""
    _, (train, test) = MNIST.open(root)
    return _arrays(_DIGITS, [(part.data.numpy(), part.targets.numpy()) for part in (train, test)])


def open_usps(root: str | None) -> Source:
    """USPS: 7,291 and 2,007 grey digits of 16 x 16."""
    _, (train, test) = USPS.open(root)
    return _arrays(_DIGITS, [(part.data, part.targets) for part in (train, test)])


def open_flowers(root: str | None) -> Source:
    """Oxford Flowers-102 with its own validation split: 1,020, 1,020 and 6,149 photos."""
    names = getattr(datasets.Flowers102, "classes", None) or [str(number + 1) for number in range(102)]
    return open_prepared("flowers", root) or _photos(FLOWERS, root, names, ("train", "validation", "test"))


def open_food(root: str | None) -> Source:
    """Food-101: 75,750 and 25,250 photos."""
    return open_prepared("food", root) or _photos(FOOD, root)


def open_pets(root: str | None) -> Source:
    """Oxford-IIIT Pet, by breed: 3,680 and 3,669 photos."""
    return open_prepared("pets", root) or _photos(PETS, root)


def _cifar(download: Download, root: str | None) -> Source:
    _, (train, test) = download.open(root)
    return _arrays(train.classes, [(part.data, part.targets) for part in (train, test)])


def _arrays(classes: Sequence[str], parts: Sequence[tuple[np.ndarray, Sequence[int] | np.ndarray]]) -> Source:
    (train, train_labels), (test, test_labels) = parts
    return source_of_arrays(
        classes, {"train": (train, np.asarray(train_labels)), "test": (test, np.asarray(test_labels))}
    )


def _photos(
    download: Download,
    root: str | None,
    classes: Sequence[str] | None = None,
    splits: tuple[Split, ...] = ("train", "test"),
) -> Source:
    """The photos of a set; every one that its lists name must be there."""
    folder, parts = download.open(root)
    listed: Mapping[Split, list[tuple[str, int]]] = {
        split: list(zip(_files(part), part._labels, strict=True))
        for split, part in zip(splits, parts, strict=True)
    }
    files = [file for part in listed.values() for file, _ in part]
    missing = [file for file in files if file_size(file) < 0]
    if missing:
        first = Path(missing[0]).relative_to(folder)
        raise download.damaged(
            folder, f"{len(missing)} of {len(files)} images are missing, the first {first}"
        )
    return source_of_files(classes or parts[0].classes, listed)


def _files(part: Any) -> list[str]:
    """The files of a torchvision set, which has no public name for them."""
    return [os.fspath(file) for file in getattr(part, "_image_files", None) or part._images]
