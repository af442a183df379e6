"""Data sets that torchvision reads: c10, c100, svhn, mnist, usps.

Their files are downloaded and verified by `neq.data.published`; torchvision alone knows their formats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from neq.data.published import Download, provide
from neq.data.sources import Source, source_of_arrays
from neq.utils.errors import UserError

_DIGITS = tuple("0123456789")
# Images and labels of one split.
_Arrays = tuple[np.ndarray, Sequence[int] | np.ndarray]


def open_c10(root: str | None) -> Source:
    """CIFAR-10: 50,000 and 10,000 colour images of 32 x 32."""
    return _cifar("c10", datasets.CIFAR10, root)


def open_c100(root: str | None) -> Source:
    """CIFAR-100: 50,000 and 10,000 colour images of 32 x 32, by fine class."""
    return _cifar("c100", datasets.CIFAR100, root)


def open_svhn(root: str | None) -> Source:
    """Street View House Numbers: 73,257 and 26,032 colour digits of 32 x 32."""
    files = _files(datasets.SVHN)
    folder = provide("svhn", files, root, "http://ufldl.stanford.edu/housenumbers/")
    train, test = _read(
        "svhn", folder, files, lambda split: datasets.SVHN(folder, split=split), ("train", "test")
    )
    return _source(_DIGITS, *((part.data.transpose(0, 2, 3, 1), part.labels) for part in (train, test)))


def open_mnist(root: str | None) -> Source:
    """MNIST: 60,000 and 10,000 grey digits of 28 x 28."""
    host = datasets.MNIST.mirrors[0]
    files = [
        Download(name, host + name, md5, (name.removesuffix(".gz"),))
        for name, md5 in datasets.MNIST.resources
    ]
    folder = provide("mnist", files, root, host, folder="MNIST/raw")
    base = folder.parents[1]
    train, test = _read("mnist", folder, files, lambda train: datasets.MNIST(base, train=train))
    return _source(_DIGITS, *((part.data.numpy(), part.targets.numpy()) for part in (train, test)))


def open_usps(root: str | None) -> Source:
    """USPS: 7,291 and 2,007 grey digits of 16 x 16."""
    files = _files(datasets.USPS)
    page = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html"
    folder = provide("usps", files, root, page)
    train, test = _read("usps", folder, files, lambda train: datasets.USPS(folder, train=train))
    return _source(_DIGITS, *((part.data, part.targets) for part in (train, test)))


def _cifar(name: str, kind: Any, root: str | None) -> Source:
    files = [Download(kind.filename, kind.url, kind.tgz_md5, (kind.base_folder,))]
    folder = provide(name, files, root, "https://www.cs.toronto.edu/~kriz/cifar.html")
    train, test = _read(name, folder, files, lambda train: kind(folder, train=train))
    return _source(train.classes, *((part.data, part.targets) for part in (train, test)))


def _files(kind: Any) -> list[Download]:
    """The files of a torchvision class that lists one for each split."""
    listed = (kind.split_list[split] for split in ("train", "test"))
    return [Download(name, url, md5) for url, name, md5 in listed]


def _read(
    name: str,
    folder: Path,
    files: Sequence[Download],
    read: Callable[[Any], Any],
    splits: Sequence[Any] = (True, False),
) -> list[Any]:
    """torchvision's data set of each split; a damaged file is an error of one line."""
    try:
        return [read(split) for split in splits]
    except Exception as error:  # unpickling and parsing raise nearly anything on a damaged file
        parts = [part for file in files for part in file.unpacks or (file.name,)]
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"data set {name} in {str(folder)!r} is incomplete or damaged ({reason}); remove "
            f"{' and '.join(parts)} there and run again to download it"
        ) from error


def _source(classes: Sequence[str], train: _Arrays, test: _Arrays) -> Source:
    (train_images, train_labels), (test_images, test_labels) = train, test
    return source_of_arrays(
        classes,
        {"train": (train_images, np.asarray(train_labels)), "test": (test_images, np.asarray(test_labels))},
    )
