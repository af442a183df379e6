import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from neq.data.image_folder import open_image_folder, open_prepared
from neq.utils.errors import UserError
from neq.utils.images import endings


def fill(folder: Path, count: int = 2, grey: int = 0) -> None:
    """Images 0.png .. of one colour, grey + 0, grey + 1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (4, 4), (grey + number,) * 3).save(folder / f"{number}.png")


def tree(root: Path, *splits: str, classes: tuple[str, ...] = ("cat", "dog")) -> str:
    for split in splits or (".",):
        for number, name in enumerate(classes):
            fill(root / split / name, grey=100 * number)
    return str(root)


def test_train_and_test(tmp_path: Path) -> None:
    source = open_image_folder(tree(tmp_path, "train", "test"))
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 1, 1] * 2
    assert source.labels.dtype == np.int64
    assert {name: part.tolist() for name, part in source.official.items()} == {
        "train": [0, 1, 2, 3],
        "test": [4, 5, 6, 7],
    }
    assert [int(source.image(index)[0, 0, 0]) for index in range(8)] == [0, 1, 100, 101] * 2
    assert source.notes == ()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Valid", "TEST"),
                                   ("TRAINING", "validation", "Testing")])  # fmt: skip
def test_train_validation_and_test(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = open_image_folder(tree(tmp_path, *names))
    assert sorted(source.official) == ["test", "train", "validation"]
    assert source.notes == ()
    assert len(np.unique(np.concatenate(list(source.official.values())))) == 12
    for name, split in zip(names, ("train", "validation", "test"), strict=True):
        files = [source.files[index] for index in source.official[split]]  # type: ignore[index]
        assert {Path(file).parent.parent.name for file in files} == {name}


@pytest.mark.parametrize("name", ["val", "Val", "validation"])
def test_val_is_the_test_split_when_there_is_no_test(tmp_path: Path, name: str) -> None:
    source = open_image_folder(tree(tmp_path, "train", name))
    assert sorted(source.official) == ["test", "train"]
    assert f"{name} is used as the test split" in source.notes[0]


def test_classes_alone_have_no_official_split(tmp_path: Path) -> None:
    source = open_image_folder(tree(tmp_path))
    assert source.official == {}
    assert source.labels.tolist() == [0, 0, 1, 1]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert open_image_folder(tree(tmp_path, classes=("plane", "train"))).classes == ("plane", "train")


def test_hidden_files_are_ignored_and_suffixes_have_no_case(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "test")
    cat = tmp_path / "train" / "cat"
    (cat / ".hidden.png").touch()
    (cat / ".thumbnails").mkdir()
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "annotations").mkdir()
    (cat / "0.png").rename(cat / "0.PNG")
    source = open_image_folder(root)
    assert len(source.labels) == 8
    assert source.notes == ()


@pytest.mark.parametrize(
    ("ending", "format"),
    [(".jfif", "JPEG"), (".JPE", "JPEG"), (".gif", "GIF"), (".jp2", "JPEG2000"), (".avif", "AVIF")],
)
def test_every_ending_that_can_be_decoded_is_read(tmp_path: Path, ending: str, format: str) -> None:
    Image.init()
    if format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {format}")
    root = tree(tmp_path)
    Image.new("RGB", (16, 16), (200, 200, 200)).save(tmp_path / "cat" / f"a{ending}", format)
    source = open_image_folder(root)
    assert [Path(file).name for file in source.files[:3]] == ["0.png", "1.png", f"a{ending}"]
    assert abs(int(source.image(2)[0, 8, 8]) - 200) < 5
    assert source.notes == ()


def test_other_files_are_counted_and_named_in_one_line(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "test")
    for name in ("b.txt", "a\nb", "Thumbs.db"):
        (tmp_path / "train" / "cat" / name).touch()
    (tmp_path / "test" / "dog" / "video.mp4").touch()
    os.mkfifo(tmp_path / "test" / "dog" / "pipe.jpg")  # reading it would never end
    source = open_image_folder(root)
    assert len(source.labels) == 8
    (note,) = source.notes
    assert note.isprintable()
    assert "5 file(s) ('train/cat/Thumbs.db', 'train/cat/a\\nb', 'train/cat/b.txt', ...)" in note


def test_heic_is_read_or_the_package_that_reads_it_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    photo = tmp_path / "cat" / "IMG_1.HEIC"
    if ".heic" not in endings():
        photo.touch()
        assert (
            "'cat/IMG_1.HEIC'); .heic needs pillow-heif: pip install 'neq[heic]'"
            in (open_image_folder(root).notes[0])
        )
        return
    Image.new("RGB", (64, 64), (200, 200, 200)).save(photo, "HEIF")
    source = open_image_folder(root)
    assert source.notes == ()
    assert abs(int(source.image(2)[0, 8, 8]) - 200) < 5


def test_folders_in_a_class_belong_to_the_class(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "test")
    fill(tmp_path / "train" / "dog" / "indoor" / "night")
    (tmp_path / "train" / "dog" / "indoor" / "back").symlink_to(tmp_path / "train" / "dog")
    source = open_image_folder(root)
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 1, 1]
    assert Path(source.files[4]).parts[-3:] == ("indoor", "night", "0.png")
    assert source.notes == ("'train/dog/indoor' is read as class 'dog'",)
    ours = sorted(source.files[:6])
    (tmp_path / "train" / "dog" / "indoor" / "back").unlink()
    assert ours == sorted(file for file, _ in ImageFolder(str(tmp_path / "train")).samples)


def test_the_fingerprint_moves_with_the_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "here", "train", "test")
    before = open_image_folder(root).fingerprint
    assert before is not None
    assert len(before) == 64
    shutil.move(root, tmp_path / "there")
    assert open_image_folder(str(tmp_path / "there")).fingerprint == before


@pytest.mark.parametrize("change", ["content", "name", "split", "more"])
def test_the_fingerprint_changes_with_the_images(tmp_path: Path, change: str) -> None:
    root = tree(tmp_path, "train", "test")
    before = open_image_folder(root).fingerprint
    file = tmp_path / "train" / "cat" / "0.png"
    if change == "content":
        Image.new("RGB", (40, 40), (1, 2, 3)).save(file)
    elif change == "name":
        file.rename(file.with_name("5.png"))
    elif change == "split":
        file.rename(tmp_path / "test" / "cat" / "5.png")
    else:
        shutil.copy(file, file.with_name("5.png"))
    assert open_image_folder(root).fingerprint != before


def test_no_root() -> None:
    with pytest.raises(UserError, match="set root"):
        open_image_folder(None)


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone' is not a folder.*ROOT/train"):
        open_image_folder(str(tmp_path / "gone"))


def test_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no class folders"):
        open_image_folder(str(tmp_path))


def test_images_right_in_the_splits_are_not_classes(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    with pytest.raises(UserError, match="no class folders"):
        open_image_folder(str(tmp_path))


def test_an_unlabelled_test_folder(tmp_path: Path) -> None:
    root = tree(tmp_path, "train")
    fill(tmp_path / "test")
    with pytest.raises(UserError, match="test' lacks class 'cat'"):
        open_image_folder(root)


def test_train_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither test nor val"):
        open_image_folder(tree(tmp_path, "train"))


@pytest.mark.parametrize("two", [("val", "valid"), ("Test", "test")])
def test_two_folders_of_one_split(tmp_path: Path, two: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=f"{two[0]} and {two[1]}; one .* folder is allowed"):
        open_image_folder(tree(tmp_path, "train", "test", *two))


def test_an_empty_class(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "test")
    (tmp_path / "train" / "eel").mkdir()
    (tmp_path / "test" / "eel").mkdir()
    (tmp_path / "test" / "eel" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"train/eel' has no image; allowed: .*\.jpg"):
        open_image_folder(root)
    fill(tmp_path / "train" / "eel")
    with pytest.raises(UserError, match=r"test/eel' has no image among 1 file\(s\) \('notes.txt'\)"):
        open_image_folder(root)


def test_a_class_that_is_not_tested(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "test")
    fill(tmp_path / "train" / "eel")
    with pytest.raises(UserError, match="test' lacks class 'eel'"):
        open_image_folder(root)


def test_a_class_that_is_not_trained(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "test")
    fill(tmp_path / "test" / "eel")
    with pytest.raises(UserError, match="test' has class 'eel'"):
        open_image_folder(root)


def test_broken_files_are_listed_for_the_check_that_follows(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (tmp_path / "cat" / "8.jpg").touch()
    (tmp_path / "cat" / "9.jpg").symlink_to(tmp_path / "gone.jpg")
    source = open_image_folder(root)
    assert [Path(file).name for file in source.files[:4]] == ["0.png", "1.png", "8.jpg", "9.jpg"]
    assert source.fingerprint is not None


def test_a_prepared_set_is_found_at_its_name_or_at_the_root(tmp_path: Path) -> None:
    assert open_prepared("birds", str(tmp_path)) is None
    (tmp_path / "train").mkdir()
    assert open_prepared("birds", str(tmp_path)) is None
    tree(tmp_path, "train", "test")
    at_root = open_prepared("birds", str(tmp_path))
    assert at_root is not None
    assert at_root.classes == ("cat", "dog")
    tree(tmp_path / "birds", "train", "test", classes=("owl", "wren"))
    by_name = open_prepared("birds", str(tmp_path))
    assert by_name is not None
    assert by_name.classes == ("owl", "wren")
