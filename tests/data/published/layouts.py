"""Data sets on a user's disk, in miniature: complete lists, and images of a few fixed bytes."""

import json
from pathlib import Path

import numpy as np
from scipy.io import savemat


def write(folder: Path, files: list[str]) -> None:
    """Write files of different sizes."""
    for number, name in enumerate(files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (number % 97 + 1))


def flowers(root: Path) -> None:
    """flowers-102/ of torchvision: 102 classes, images of all splits in a mixed order."""
    top = root / "flowers-102"
    order = np.random.default_rng(5).permutation(408)
    write(top / "jpg", [f"image_{number + 1:05d}.jpg" for number in range(408)])
    labels = np.arange(408) * 5 % 102 + 1
    savemat(top / "imagelabels.mat", {"labels": labels[None]})
    parts = np.split(order + 1, [102, 204])
    savemat(top / "setid.mat", dict(zip(("trnid", "valid", "tstid"), (p[None] for p in parts), strict=True)))


def food(root: Path) -> None:
    """food-101/ of torchvision: the classes of the lists are not sorted."""
    meta: dict[str, dict[str, list[str]]] = {}
    for split, each in (("train", 3), ("test", 2)):
        names = ("waffles", "apple_pie", "cup_cakes")
        meta[split] = {name: [f"{name}/{each * 100 - n}" for n in range(each)] for name in names}
        write(root / "food-101/images", [f"{image}.jpg" for of in meta[split].values() for image in of])
    (root / "food-101/meta").mkdir()
    for split, lists in meta.items():
        (root / f"food-101/meta/{split}.json").write_text(json.dumps(lists))


def pets(root: Path) -> None:
    """oxford-iiit-pet/ of torchvision: breeds that differ in their last word, one image that no list has."""
    top = root / "oxford-iiit-pet"
    (top / "annotations").mkdir(parents=True)
    breeds = ("Abyssinian", "american_bulldog", "american_pit_bull_terrier")
    for split, each in (("trainval", 4), ("test", 2)):
        rows = [
            (f"{name}_{each * 10 + n}", breed) for n in range(each) for breed, name in enumerate(breeds, 1)
        ]
        write(top / "images", [f"{image}.jpg" for image, _ in rows] + ["american_bulldog_999.jpg"])
        lines = [f"{image} {breed} {1 + (breed > 1)} 1" for image, breed in rows]
        (top / f"annotations/{split}.txt").write_text("\n".join(lines) + "\n")


def cub(root: Path) -> None:
    """CUB_200_2011/ as its archive unpacks: the order of images.txt is that of no folder."""
    top = root / "CUB_200_2011"
    classes = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")
    files = [f"{name}/{name[4:]}_{9 - n:04d}.jpg" for n in range(4) for name in classes]
    write(top / "images", files)
    numbers = list(range(1, len(files) + 1))
    lists = {
        "images": [f"{number} {file}" for number, file in zip(numbers, files, strict=True)],
        "image_class_labels": [f"{number} {(number - 1) % 3 + 1}" for number in numbers],
        "train_test_split": [f"{number} {int(number % 4 < 2)}" for number in numbers],
        "classes": [f"{number} {name}" for number, name in enumerate(classes, 1)],
    }
    for name, lines in lists.items():
        (top / f"{name}.txt").write_text("\n".join(lines) + "\n")


def vww(root: Path, year: str = "2017") -> None:
    """coco/ of one year: every third photo shows a person."""
    top = root / "coco"
    (top / "annotations").mkdir(parents=True)
    for part, first in (("train", 0), ("val", 100)):
        images = [
            {"id": first + n, "file_name": f"{first + n * 7 % 20:012d}.jpg", "width": 100, "height": 100}
            for n in range(20)
        ]
        write(top / f"{part}{year}", [str(image["file_name"]) for image in images])
        boxes = [
            {"image_id": first + n, "category_id": 1, "bbox": [0, 0, 30, 30], "area": 1.0}
            for n in range(0, 20, 3)
        ]
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}
        (top / f"annotations/instances_{part}{year}.json").write_text(json.dumps(content))


def vww_minival(root: Path) -> None:
    """coco/ with the published test list."""
    vww(root)
    (root / "coco/mscoco_minival_ids.txt").write_text("3\n104\n105\n119\n")


LAYOUTS = {
    "flowers": flowers,
    "food": food,
    "pets": pets,
    "cub": cub,
    "vww": vww,
    "vww_minival": vww_minival,
}
