from pathlib import Path

import pytest

from neq.data.published import ListedImage
from neq.data.published.food import FOOD
from neq.utils.errors import UserError
from tests.data.published.layouts import LAYOUTS


def test_classes_are_numbered_by_name(tmp_path: Path) -> None:
    LAYOUTS["food"](tmp_path)
    listed = FOOD.read(tmp_path)
    assert listed[0] == ListedImage("train", 2, "waffles", "food-101/images/waffles/300.jpg")
    assert {image.class_id: image.class_name for image in listed} == {
        0: "apple_pie",
        1: "cup_cakes",
        2: "waffles",
    }


@pytest.mark.parametrize(
    ("text", "message"), [("[1]", "is not of the form"), ('{"a": [1]}', "is not of"), ("{", "cannot be read")]
)
def test_damaged_lists_are_one_line(text: str, message: str, tmp_path: Path) -> None:
    LAYOUTS["food"](tmp_path)
    (tmp_path / "food-101/meta/test.json").write_text(text)
    with pytest.raises(UserError, match=message):
        FOOD.read(tmp_path)
