import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neq.data.published.vww import labelled_images, open_vww, person_images
from neq.utils.errors import UserError
from tests.data.miniatures import jpeg

PERSON, DOG = 1, 18
# Boxes on photos of 100 x 100, where 0.5 % are 50 pixels; the label by the published rule.
PHOTOS: dict[int, tuple[list[tuple[int, list[float]]], int]] = {
    10: ([], 0),
    11: ([(PERSON, [0, 0, 5, 10])], 0),  # exactly 0.5 % is not over it
    12: ([(PERSON, [0, 0, 5, 10.1])], 1),
    13: ([(DOG, [0, 0, 90, 90])], 0),
    14: ([(PERSON, [0, 0, 2, 2]), (DOG, [0, 0, 50, 50]), (PERSON, [3, 3, 50, 50])], 1),
    15: ([(PERSON, [0, 0, 7, 7])] * 2, 0),  # no single box, whatever they cover together
}


def coco(root: Path, year: str = "2017", photos: dict[int, Any] = PHOTOS) -> Path:
    """Photos and annotations; the training part has ids 10 .. 15, val 110 .. 115."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for part, offset in (("train", 0), ("val", 100)):
        images, annotations = [], []
        (root / f"{part}{year}").mkdir()
        for number, (boxes, _) in photos.items():
            name = f"{offset + number:012d}.jpg"
            (root / f"{part}{year}" / name).write_bytes(jpeg(number))
            images.append({"id": offset + number, "file_name": name, "width": 100, "height": 100})
            for category, box in boxes:
                # The area of a segmentation is always smaller than its box, here 0.
                entry = {"image_id": offset + number, "category_id": category, "bbox": box, "area": 0}
                annotations.append({**entry, "iscrowd": int(number == 12)})
        categories = [{"id": PERSON, "name": "person"}, {"id": DOG, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{part}{year}.json").write_text(json.dumps(content))
    return root


def test_the_published_rule(tmp_path: Path) -> None:
    coco(tmp_path)
    listed = labelled_images(tmp_path / "annotations" / "instances_train2017.json", "box")
    assert {number: int(label) for number, _, label in listed} == {
        number: label for number, (_, label) in PHOTOS.items()
    }


@pytest.mark.parametrize("year", ["2017", "2014"])
@pytest.mark.parametrize("place", [".", "coco"])
def test_coco_is_read(tmp_path: Path, year: str, place: str) -> None:
    coco(tmp_path / place, year)
    source = open_vww(str(tmp_path))
    assert source.classes == ("not_person", "person")
    assert {name: len(part) for name, part in source.official.items()} == {"train": 6, "test": 6}
    assert np.bincount(source.labels).tolist() == [8, 4]
    train, test = ({source.files[i] for i in part} for part in source.official.values())
    assert not train & test
    assert all(f"train{year}" in file for file in train)
    assert source.notes == (f"vww is read from COCO {year}, divided by COCO's own train and val",)
    assert source.image(0).shape == (3, 20, 24)


def test_the_published_test_list_is_used_where_it_is(tmp_path: Path) -> None:
    before = open_vww(str(coco(tmp_path))).fingerprint
    (tmp_path / "mscoco_minival_ids.txt").write_text("11\n112\n115\n")
    source = open_vww(str(tmp_path))
    test = {int(Path(source.files[index]).stem) for index in source.official["test"]}
    assert test == {11, 112, 115}
    assert len(source.official["train"]) == 9
    assert source.fingerprint != before
    (tmp_path / "mscoco_minival_ids.txt").write_text("eleven\n")
    with pytest.raises(UserError, match=r"mscoco_minival_ids\.txt' cannot be read \(ValueError"):
        open_vww(str(tmp_path))


def test_the_annotations_are_read_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    root = coco(tmp_path / "coco")
    first = open_vww(str(root))
    kept = list((tmp_path / "cache" / "vww").glob("*.json"))
    assert len(kept) == 2
    with monkeypatch.context() as patch:
        patch.setattr("neq.data.published.vww.read_json", lambda path: {})
        again = open_vww(str(root))
    assert np.array_equal(again.labels, first.labels)
    assert again.fingerprint == first.fingerprint
    path = root / "annotations" / "instances_train2017.json"
    changed = json.loads(path.read_text())
    changed["annotations"] = []
    path.write_text(json.dumps(changed))
    other = open_vww(str(root))
    assert other.labels[other.official["train"]].sum() == 0
    assert other.fingerprint != first.fingerprint


def test_image_folders_are_read(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number, name in enumerate(("person", "not_person")):
            (tmp_path / "vww" / part / name).mkdir(parents=True)
            (tmp_path / "vww" / part / name / "1.jpg").write_bytes(jpeg(number))
    for root in (tmp_path, tmp_path / "vww"):
        assert open_vww(str(root)).classes == ("not_person", "person")


def test_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"vww is not in '.*'; put COCO there, as coco/train2017.*cocodataset"
    ):
        open_vww(str(tmp_path))


def test_photos_that_are_missing(tmp_path: Path) -> None:
    coco(tmp_path)
    next((tmp_path / "val2017").iterdir()).unlink()
    missing = r"1 of 12 images are missing, the first val2017/"
    with pytest.raises(UserError, match=rf"incomplete or damaged \({missing}.*unpack train2017\.zip"):
        open_vww(str(tmp_path))


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"images": [{}], "categories": [], "annotations": []}']
)
def test_damaged_annotations(tmp_path: Path, content: str) -> None:
    coco(tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").write_text(content)
    with pytest.raises(UserError, match=r"instances_val2017\.json' cannot be read") as caught:
        open_vww(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_the_threshold_is_over_half_a_percent() -> None:
    def instances(box: tuple[float, float], crowd: int = 0) -> dict[str, Any]:
        entry = {"image_id": 7, "category_id": 1, "bbox": [0, 0, *box], "area": 1e9, "iscrowd": crowd}
        return {
            "categories": [{"id": 1, "name": "person"}],
            "images": [{"id": 7, "width": 200, "height": 100}],
            "annotations": [entry],
        }

    assert person_images(instances((10, 10)), "box") == set()
    assert person_images(instances((10, 10.001)), "box") == {7}
    assert person_images(instances((10, 11), crowd=1), "box") == {7}
    assert person_images(instances((1, 1)), "segment") == {7}
