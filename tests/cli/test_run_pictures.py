"""The pictures beside a run's record, and what titles call its images."""

import shutil

import pytest

from neq.cli import run_pictures
from neq.cli.run_pictures import draw_missing, images_title
from neq.config import data_title


@pytest.fixture
def drawn(tiny_run, tmp_path, monkeypatch):
    """A run's folder without pictures, and the titles that its pictures get."""
    folder, titles = shutil.copytree(tiny_run, tmp_path / "run"), []
    for name in ("curves", "selection"):
        (folder / f"{name}.png").unlink()
        monkeypatch.setattr(f"neq.results.plot_{name}", lambda metrics, path, title: titles.append(title))
    return folder, titles


def test_pictures_have_the_title_of_their_run(drawn):
    folder, titles = drawn
    assert draw_missing(folder) == []
    assert titles == ["mcunet-in0 on digits, velocity, seed 0"] * 2


def test_images_of_ones_own_have_their_folders_name(drawn, tmp_path):
    folder, titles = drawn
    (tmp_path / "holiday photos").mkdir()
    text = (folder / "config.yaml").read_text().replace("dataset: digits", "dataset: image_folder")
    text = text.replace("root: null", f"root: {tmp_path / 'holiday photos'}")
    (folder / "config.yaml").write_text(text)
    draw_missing(folder)
    assert titles[0] == "mcunet-in0 on holiday photos, velocity, seed 0"
    (folder / "config.yaml").unlink()
    assert images_title(folder) is None
    assert run_pictures._title(folder) == ""


def test_what_titles_call_a_data_set(tmp_path):
    (tmp_path / "set.npz").touch()
    assert data_title("npz", str(tmp_path / "set.npz")) == "set"
    assert data_title("image_folder", str(tmp_path / "gone" / "photos")) == "photos"
    assert data_title("digits", str(tmp_path)) == "digits"
    assert data_title("image_folder", None) == "image_folder"
