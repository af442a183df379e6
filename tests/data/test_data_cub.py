from pathlib import Path

import numpy as np
import pytest

from neq.data.cub import open_cub
from neq.utils.errors import UserError
from tests.data.miniatures import jpeg

CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")


def original(root: Path) -> Path:
    """CUB_200_2011/ as its archive unpacks, three classes of four images, every second one for training."""
    folder = root / "CUB_200_2011"
    files = []
    for name in CLASSES:
        (folder / "images" / name).mkdir(parents=True)
        for number in range(4):
            files.append(f"{name}/{name[4:]}_{number:04d}.jpg")
            (folder / "images" / files[-1]).write_bytes(jpeg(len(files)))
    numbers = range(1, len(files) + 1)
    lists = {
        "images.txt": [f"{number} {file}" for number, file in zip(numbers, files, strict=True)],
        "image_class_labels.txt": [f"{number} {(number - 1) // 4 + 1}" for number in numbers],
        "train_test_split.txt": [f"{number} {number % 2}" for number in numbers],
        "classes.txt": [f"{number} {name}" for number, name in enumerate(CLASSES, start=1)],
    }
    for file, lines in lists.items():
        (folder / file).write_text("\n".join(lines) + "\n")
    return folder


def test_the_official_lists_divide_it(tmp_path: Path) -> None:
    folder = original(tmp_path)
    for root in (tmp_path, folder):
        source = open_cub(str(root))
        assert source.classes == CLASSES
        assert [len(part) for part in source.official.values()] == [6, 6]
        assert np.bincount(source.labels[source.official["train"]]).tolist() == [2, 2, 2]
        names = {name: {source.files[i] for i in part} for name, part in source.official.items()}
        assert not names["train"] & names["test"]
        assert {Path(file).stem[-4:] for file in names["train"]} == {"0000", "0002"}
        for index, file in enumerate(source.files):
            assert Path(file).parent.name == CLASSES[source.labels[index]]
        assert source.image(0).shape == (3, 20, 24)


def test_image_folders_are_read(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number, name in enumerate(CLASSES):
            (tmp_path / "cub" / part / name).mkdir(parents=True)
            (tmp_path / "cub" / part / name / "1.jpg").write_bytes(jpeg(number))
    assert open_cub(str(tmp_path)).classes == CLASSES
    assert open_cub(str(tmp_path / "cub")).classes == CLASSES


def test_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cub is not in '.*'; put CUB_200_2011.tgz from https://\S+ there.*cub200"
    ):
        open_cub(str(tmp_path / "nowhere"))


def test_images_that_are_missing(tmp_path: Path) -> None:
    folder = original(tmp_path)
    for path in sorted(folder.glob("images/*/*.jpg"))[:2]:
        path.unlink()
    with pytest.raises(UserError, match=r"incomplete \(2 of 12 images are missing, the first .*0000\.jpg"):
        open_cub(str(tmp_path))


@pytest.mark.parametrize("change", ["missing", "cut", "other"])
def test_damaged_lists(tmp_path: Path, change: str) -> None:
    path = original(tmp_path) / "image_class_labels.txt"
    if change == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text()[:-4] if change == "cut" else "1 99\n")
    with pytest.raises(UserError, match=r"incomplete \(its lists cannot be read"):
        open_cub(str(tmp_path))
