import pytest

from neq.data.published.mark import MARK, Mark, finished_mark, read_mark
from neq.utils.errors import UserError

SETTINGS = {"set": "mini", "validation": 0.2}
# As version 0.1.0 wrote it.
WRITTEN = """{"settings": {"set": "flowers102", "validation": null}, "plan": "00",
"counts": {"train": 2, "val": 1}, "classes": 1, "official_counts": true, "sources": [
{"file": "a.tgz", "url": "http://a", "md5": null}]}"""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_mark_of_an_earlier_version_is_read(out):
    for split, count in (("train", 2), ("val", 1)):
        (out / split / "1.a").mkdir(parents=True)
        for number in range(count):
            (out / split / "1.a" / f"{number}.jpg").touch()
    (out / MARK).write_text(WRITTEN)
    mark = finished_mark(out, {"set": "flowers102", "validation": None})
    assert mark == Mark.model_validate_json(WRITTEN)
    assert mark.counts == {"train": 2, "val": 1}


def test_a_folder_with_other_things_is_refused(out):
    assert finished_mark(out, SETTINGS) is None
    out.mkdir()
    assert finished_mark(out, SETTINGS) is None
    (out / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds 'thesis\.tex' \(1 entries in all\) and no mark"):
        finished_mark(out, SETTINGS)


def test_a_file_as_folder_is_refused(out):
    out.touch()
    with pytest.raises(UserError, match="is a file; give a folder"):
        finished_mark(out, SETTINGS)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"settings": 1}', "\0"])
def test_a_mark_that_is_none(out, text):
    out.mkdir()
    (out / MARK).write_text(text)
    with pytest.raises(UserError, match="is not a mark written by this script"):
        read_mark(out / MARK)
