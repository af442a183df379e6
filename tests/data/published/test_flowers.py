from pathlib import Path

import pytest
from scipy.io import savemat

from neq.data import open_source
from neq.data.published.flowers import FLOWERS
from neq.utils.errors import UserError
from tests.data.published import small_sets
from tests.data.published.layouts import LAYOUTS


def test_splits_and_class_names(tmp_path: Path) -> None:
    LAYOUTS["flowers"](tmp_path)
    listed = FLOWERS.read(tmp_path / "flowers-102")
    counts = {split: sum(image.split == split for image in listed) for split in FLOWERS.counts}
    assert counts == {"train": 102, "validation": 102, "test": 204}
    (first,) = {image.class_name for image in listed if image.class_id == 1}
    assert first == "pink primrose"


@pytest.mark.parametrize("list_name", ["imagelabels.mat", "setid.mat"])
def test_a_list_that_is_not_the_published_one_is_refused(
    list_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_sets.offer("flowers", tmp_path, "http://127.0.0.1:9", monkeypatch)  # nobody listens there
    open_source("flowers", str(tmp_path))
    path = tmp_path / "flowers-102" / list_name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=rf"{list_name}' has md5 .*delete it and run again to download it"):
        open_source("flowers", str(tmp_path))


def test_lists_of_something_else_are_one_line(tmp_path: Path) -> None:
    small_sets.flowers102_files(tmp_path)
    savemat(tmp_path / "setid.mat", {"trnid": [1], "valid": [2], "tstid": [500]})
    with pytest.raises(UserError, match=r"names image 500, but imagelabels\.mat has 14 labels"):
        FLOWERS.read(tmp_path)
    (tmp_path / "setid.mat").write_bytes(b"no matlab")
    with pytest.raises(UserError, match=r"setid\.mat' cannot be read"):
        FLOWERS.read(tmp_path)
