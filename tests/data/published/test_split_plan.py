import pytest

from neq.data.published import ListedImage
from neq.data.published.published_set import SPLIT_FOLDERS
from neq.data.published.split_plan import class_folder, plan_split
from neq.utils.errors import UserError


def listed(train=10, val=0, test=4, classes=2):
    """Images SPLIT_CLASS_NUMBER.jpg."""
    return [
        ListedImage(split, number, f"name {number}", f"all/{split}_{number}_{count}.jpg")
        for split, per_class in (("train", train), ("validation", val), ("test", test))
        for number in range(classes)
        for count in range(per_class)
    ]


@pytest.fixture
def raw(tmp_path):
    def fill(images):
        (tmp_path / "all").mkdir(exist_ok=True)
        for image in images:
            (tmp_path / image.path).write_text(image.path)
        return tmp_path

    return fill


def by_split(plan):
    return {split: {item.name for item in plan if item.split == split} for split in ("train", "val", "test")}


def test_the_official_splits_are_kept(raw):
    images = listed(train=3, val=2, test=1)
    plan = plan_split(images, raw(images), None)
    assert {(item.split, item.class_folder, item.source.name) for item in plan} == {
        (SPLIT_FOLDERS[image.split], f"{image.class_id}.name_{image.class_id}", image.path[4:])
        for image in images
    }


def test_validation_is_cut_off_train_by_class(raw):
    images = listed(train=10, test=4, classes=3)
    parts = by_split(plan_split(images, raw(images), 0.2))
    assert {name: len(part) for name, part in parts.items()} == {"train": 24, "val": 6, "test": 12}
    for number in range(3):
        assert sum(name.startswith(f"train_{number}_") for name in parts["val"]) == 2
    assert all(name.startswith("test_") for name in parts["test"])
    assert not parts["train"] & parts["val"]


def test_the_same_images_are_validation_every_time_and_in_any_order(raw):
    images = listed(train=20)
    first = plan_split(images, raw(images), 0.2)
    again = plan_split(images[::-1], raw(images), 0.2)
    assert first == again


def test_validation_is_not_the_first_of_each_class(raw):
    images = listed(train=50)
    val = by_split(plan_split(images, raw(images), 0.2))["val"]
    assert val != {f"train_{number}_{count}.jpg" for number in range(2) for count in range(10)}


def test_official_validation_images_go_back_before_a_cut(raw):
    images = listed(train=10, val=10, test=1)
    parts = by_split(plan_split(images, raw(images), 0.1))
    assert {name: len(part) for name, part in parts.items()} == {"train": 36, "val": 4, "test": 2}
    parts = by_split(plan_split(images, raw(images), 0))
    assert {name: len(part) for name, part in parts.items()} == {"train": 40, "val": 0, "test": 2}


def test_every_class_is_in_every_split(raw):
    images = listed(train=3)
    for share in (0.01, 0.99):
        parts = by_split(plan_split(images, raw(images), share))
        for number in range(2):
            assert all(any(f"_{number}_" in name for name in part) for part in parts.values())


def test_a_class_of_one_image_cannot_be_cut(raw):
    images = listed(train=1)
    with pytest.raises(UserError, match=r"class 0 has 1 training image.*leave out --validation"):
        plan_split(images, raw(images), 0.2)


def test_two_classes_of_one_name_do_not_merge(raw):
    images = [image._replace(class_name="Cormorant") for image in listed()]
    plan = plan_split(images, raw(images), None)
    assert {item.class_folder for item in plan} == {"0.Cormorant", "1.Cormorant"}


def test_two_images_of_one_name_are_refused(raw, tmp_path):
    images = [ListedImage("train", 0, "x", "all/a.jpg"), ListedImage("train", 0, "x", "all/more/a.jpg")]
    (tmp_path / "all/more").mkdir(parents=True)
    with pytest.raises(UserError, match=r"two images 'a\.jpg' of class '0\.x' in train"):
        plan_split(images, raw(images), None)


def test_absent_and_empty_images_are_counted_and_named(raw, tmp_path):
    images = listed(train=3, test=2)
    raw(images)
    (tmp_path / images[0].path).unlink()
    (tmp_path / images[1].path).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"2 of 10 images named in the lists .*'all/train_0_0.jpg', 'all/train_0_1"
    ):
        plan_split(images, tmp_path, None)


@pytest.mark.parametrize(
    ("number", "name", "largest", "folder"),
    [
        (7, "Laysan_Albatross", 200, "007.Laysan_Albatross"),
        (2, "colt's foot", 102, "002.colts_foot"),
        (60, "pink-yellow dahlia?", 102, "060.pink-yellow_dahlia"),
        (0, "../..", 1, "0....."),
        (3, " / ", 9, "3"),
        (1, "König", 9, "1.Knig"),
        (7, "007.Laysan_Albatross", 12, "07.Laysan_Albatross"),
        (7, "17.mai", 9, "7.17.mai"),
        (7, "7.", 9, "7.7."),
    ],
)
def test_class_folders(number, name, largest, folder):
    assert class_folder(number, name, largest) == folder
