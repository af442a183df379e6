"""The five published sets in miniature: archives of the same structure with few small images."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from neq.data.published import PublishedSet, cub, flowers, food, pets
from neq.data.published.vww import published_vww
from tests.data.miniatures import jpeg, tar

Tree = dict[str, list[str]]


def zipped(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def cub200_files(raw: Path) -> Tree:
    """Two birds whose names share a word; 3 images each to train, 2 to test."""
    images: list[str] = []
    classes, labels, split = [], [], []
    files: dict[str, bytes] = {"attributes.txt": b"beside", "CUB_200_2011/README": b"read me"}
    tree: Tree = {}
    for bird, name in ((1, "001.Brandt_Cormorant"), (2, "002.Pelagic_Cormorant")):
        classes.append(f"{bird} {name}")
        for count in range(5):
            number = len(images) + 1
            file = f"Cormorant_{number:04d}_{number}.jpg"
            images.append(f"{number} {name}/{file}")
            labels.append(f"{number} {bird}")
            split.append(f"{number} {int(count < 3)}")
            files[f"CUB_200_2011/images/{name}/{file}"] = jpeg(number)
            files[f"CUB_200_2011/images/{name}/._{file}"] = b"macOS"
            folder = "train" if count < 3 else "test"
            tree.setdefault(f"{folder}/{bird}.{name[4:]}", []).append(file)
    lists = {"images": images, "classes": classes, "image_class_labels": labels, "train_test_split": split}
    for name, lines in lists.items():
        files[f"CUB_200_2011/{name}.txt"] = ("\n".join(lines) + "\n").encode()
    tar(raw / "CUB_200_2011.tgz", files)
    return tree


def flowers102_files(raw: Path) -> Tree:
    """Class 1, and 60 with a question mark in its name; 2 train, 2 val, 3 test images each."""
    names = {1: "01.pink_primrose", 60: "60.pink-yellow_dahlia"}
    labels: list[int] = []
    files: dict[str, bytes] = {}
    tree: Tree = {}
    ids: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    folders = {"trnid": "train", "valid": "val", "tstid": "test"}
    for number in names:
        for key in ("trnid", "trnid", "valid", "valid", "tstid", "tstid", "tstid"):
            labels.append(number)
            image = len(labels)
            ids[key].append(image)
            file = f"image_{image:05d}.jpg"
            files[f"jpg/{file}"] = jpeg(image)
            tree.setdefault(f"{folders[key]}/{names[number]}", []).append(file)
    tar(raw / "102flowers.tgz", files)
    savemat(raw / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    savemat(raw / "setid.mat", {key: np.array([value], dtype=np.uint16) for key, value in ids.items()})
    return tree


def food101_files(raw: Path) -> Tree:
    files: dict[str, bytes] = {"food-101/license_agreement.txt": b"licence"}
    meta: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    tree: Tree = {}
    for dish, name in enumerate(("apple_pie", "waffles")):
        for count in range(4):
            number, split = 1000 * dish + 7 * count, "train" if count < 3 else "test"
            meta[split].setdefault(name, []).append(f"{name}/{number}")
            files[f"food-101/images/{name}/{number}.jpg"] = jpeg(number)
            tree.setdefault(f"{split}/{dish}.{name}", []).append(f"{number}.jpg")
    for split, images in meta.items():
        files[f"food-101/meta/{split}.json"] = json.dumps(images).encode()
    tar(raw / "food-101.tar.gz", files)
    return tree


def pets_files(raw: Path) -> Tree:
    """Breeds that a name cut at its first _ would merge; an image not listed; tars not compressed."""
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    images: dict[str, bytes] = {
        "images/american_bulldog_999.jpg": jpeg(999),
        "images/Abyssinian_1.mat": b"matlab",
    }
    tree: Tree = {}
    for breed, name in enumerate(("Abyssinian", "american_bulldog", "american_pit_bull_terrier"), 1):
        for count in range(4):
            key, split = ("trainval", "train") if count < 3 else ("test", "test")
            lists[key].append(f"{name}_{count} {breed} {1 if breed == 1 else 2} {breed}")
            images[f"images/{name}_{count}.jpg"] = jpeg(10 * breed + count)
            tree.setdefault(f"{split}/{breed}.{name}", []).append(f"{name}_{count}.jpg")
    tar(raw / "images.tar.gz", images, "w")
    texts = {f"./annotations/{name}.txt": "\n".join(lines).encode() for name, lines in lists.items()}
    tar(raw / "annotations.tar.gz", {**texts, "./annotations/trimaps/a.png": b"png"}, "w")
    return tree


def vww_files(raw: Path, year: int = 2014) -> Tree:
    """Persons of a large, a threshold and a small box, a dog, nobody; one of each in minival."""
    boxes = {
        "large": [1, 0, 0, 20, 20],
        "threshold": [1, 0, 0, 5, 10],  # exactly .5 % of 100 x 100 is not over it
        "thin": [1, 0, 0, 30, 30],  # a large box around a small segmentation
        "dog": [18, 0, 0, 90, 90],
        "nobody": None,
    }
    tree: Tree = {}
    minival, instances = [], {}
    for part, first in (("train", 0), ("val", 100)):
        pictures, annotations, files = [], [], {}
        for index, (kind, box) in enumerate(boxes.items()):
            for copy in range(3):
                number = first + 10 * index + copy
                file = f"COCO_{part}{year}_{number:012d}.jpg" if year == 2014 else f"{number:012d}.jpg"
                pictures.append({"id": number, "file_name": file, "width": 100, "height": 100})
                files[f"{part}{year}/{file}"] = jpeg(number, (100, 120))
                if box is not None:
                    covered = 10.0 if kind == "thin" else float(box[3] * box[4])
                    annotations.append(
                        {
                            "image_id": number,
                            "category_id": box[0],
                            "bbox": box[1:],
                            "area": covered,
                            "iscrowd": 0,
                        }
                    )
                is_test = part == "val" and copy == 0
                if is_test:
                    minival.append(number)
                label = "1.person" if kind in ("large", "thin") else "0.not_person"
                tree.setdefault(f"{'test' if is_test else 'train'}/{label}", []).append(file)
        categories = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
        instances[part] = {"images": pictures, "annotations": annotations, "categories": categories}
        zipped(raw / f"{part}{year}.zip", files)
    lists = {
        f"annotations/instances_{part}{year}.json": json.dumps(it).encode() for part, it in instances.items()
    }
    zipped(raw / f"annotations_trainval{year}.zip", {**lists, "annotations/captions_x.json": b"{}"})
    (raw / "mscoco_minival_ids.txt").write_text("".join(f"{number}\n" for number in minival))
    return tree


MAKERS: dict[str, Callable[[Path], Tree]] = {
    "cub200": cub200_files,
    "flowers102": flowers102_files,
    "food101": food101_files,
    "pets": pets_files,
    "vww": vww_files,
}
SETS: dict[str, PublishedSet] = {
    published.script: published
    for published in (cub.CUB, flowers.FLOWERS, food.FOOD, pets.PETS, published_vww(2014, "box", None))
}


def miniature(published: PublishedSet, files: Path, url: str, tree: Tree) -> PublishedSet:
    """A set as if it were published at `url`, with the checksums and counts of its miniature."""
    downloads = tuple(
        dataclasses.replace(
            download,
            url=f"{url}/{download.name}",
            md5=None
            if download.md5 is None
            else hashlib.md5((files / download.name).read_bytes()).hexdigest(),
        )
        for download in published.downloads
    )
    counts = {
        split: sum(len(names) for folder, names in tree.items() if folder.startswith(split[:3]))
        for split in published.counts
    }
    return dataclasses.replace(published, downloads=downloads, counts=counts)


def offer(name: str, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[PublishedSet, Tree]:
    """Put the archives of a miniature into a folder, as if they were published at a URL.

    Args:
        name: in `--dataset`: cub, flowers, food or pets.
        folder: of the archives.
        url: of the folder.
        monkeypatch: replaces the published set by the miniature.

    Returns:
        The miniature, and its images: SPLIT/CLASS -> names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module, constant = {
        "cub": (cub, "CUB"),
        "flowers": (flowers, "FLOWERS"),
        "food": (food, "FOOD"),
        "pets": (pets, "PETS"),
    }[name]
    published: PublishedSet = getattr(module, constant)
    tree = MAKERS[published.script](folder)
    small = miniature(published, folder, url, tree)
    monkeypatch.setattr(module, constant, small)
    return small, tree


def content(folder: Path) -> Tree:
    """SPLIT/CLASS -> names, of everything in a folder that is not hidden."""
    tree: Tree = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            tree.setdefault(relative.parent.as_posix(), []).append(path.name)
    return tree
