from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neq.data.published import cub
from neq.data.published.cub import open_cub
from neq.utils.errors import UserError
from tests.data.miniatures import jpeg

CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published where nobody listens."""
    (download,) = cub.CUB.downloads
    away = replace(download, url="http://127.0.0.1:9/CUB_200_2011.tgz")
    monkeypatch.setattr(cub, "CUB", replace(cub.CUB, downloads=(away,)))


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
        UserError, match=r"cub is not in '.*': http\S+ cannot be downloaded .* put CUB_200_2011.tgz into"
    ):
        open_cub(str(tmp_path / "nowhere"))


def test_images_that_are_missing(tmp_path: Path) -> None:
    folder = original(tmp_path)
    for path in sorted(folder.glob("images/*/*.jpg"))[:2]:
        path.unlink()
    missing = r"2 of 12 images are missing, the first .*0000\.jpg"
    with pytest.raises(UserError, match=rf"damaged \({missing}\); remove CUB_200_2011 there and run again"):
        open_cub(str(tmp_path))
    with pytest.raises(UserError, match=rf"damaged \({missing}\); unpack the files from https://"):
        open_cub(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"image_class_labels\.txt' is missing"),
        ("cut", r"line 12 of list .*image_class_labels\.txt' is '1'"),
        ("short", "have 12, 1 and 12 images; .* must have the same"),
        ("other", "image 12 has class '9' and split '0'"),
    ],
)
def test_damaged_lists(tmp_path: Path, change: str, message: str) -> None:
    folder = original(tmp_path)
    path = folder / "image_class_labels.txt"
    text = path.read_text()
    if change == "missing":
        path.unlink()
    else:
        path.write_text({"cut": text[:-4], "short": "1 1\n", "other": text[:-2] + "9\n"}[change])
    with pytest.raises(UserError, match=message) as caught:
        open_cub(str(folder))
    assert len(str(caught.value).splitlines()) == 1
