import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neq.data.image_folder import open_image_folder, open_prepared
from neq.utils.errors import UserError


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


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_train_validation_and_test(tmp_path: Path, name: str) -> None:
    source = open_image_folder(tree(tmp_path, "train", name, "test"))
    assert sorted(source.official) == ["test", "train", "validation"]
    assert source.notes == ()
    assert len(np.unique(np.concatenate(list(source.official.values())))) == 12


def test_val_is_the_test_split_when_there_is_no_test(tmp_path: Path) -> None:
    source = open_image_folder(tree(tmp_path, "train", "val"))
    assert sorted(source.official) == ["test", "train"]
    assert "val is used as the test split" in source.notes[0]


def test_classes_alone_have_no_official_split(tmp_path: Path) -> None:
    source = open_image_folder(tree(tmp_path))
    assert source.official == {}
    assert source.labels.tolist() == [0, 0, 1, 1]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert open_image_folder(tree(tmp_path, classes=("plane", "train"))).classes == ("plane", "train")


def test_hidden_and_other_files_are_ignored_and_suffixes_have_no_case(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "test")
    cat = tmp_path / "train" / "cat"
    (cat / ".hidden.png").touch()
    (cat / "notes.txt").write_text("x")
    (cat / ".thumbnails").mkdir()
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "annotations").mkdir()
    (cat / "0.png").rename(cat / "0.PNG")
    assert len(open_image_folder(root).labels) == 8


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


def test_two_validation_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="val and valid"):
        open_image_folder(tree(tmp_path, "train", "test", "val", "valid"))


def test_splits_of_other_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="testing' holds folders"):
        open_image_folder(tree(tmp_path, "training", "testing"))


def test_an_empty_class(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "test")
    (tmp_path / "train" / "eel").mkdir()
    (tmp_path / "test" / "eel").mkdir()
    with pytest.raises(UserError, match=r"train/eel' has no image.*\.jpg"):
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
