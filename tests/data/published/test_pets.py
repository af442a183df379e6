from pathlib import Path

import pytest

from neq.data.published.pets import PETS
from neq.utils.errors import UserError
from tests.data.published.layouts import LAYOUTS


def test_breeds_that_begin_alike_do_not_merge(tmp_path: Path) -> None:
    LAYOUTS["pets"](tmp_path)
    listed = PETS.read(tmp_path / "oxford-iiit-pet")
    breeds = {image.class_id: PETS.display_name(image.class_name) for image in listed}
    assert breeds == {1: "Abyssinian", 2: "American Bulldog", 3: "American Pit Bull Terrier"}
    assert {image.split for image in listed} == {"train", "test"}


def test_a_class_that_is_no_number_is_one_line(tmp_path: Path) -> None:
    LAYOUTS["pets"](tmp_path)
    (tmp_path / "oxford-iiit-pet/annotations/test.txt").write_text("a_1 x 1 1\n")
    with pytest.raises(UserError, match="the class 'x'; a number is needed"):
        PETS.read(tmp_path / "oxford-iiit-pet")
