"""`neq predict`."""

import pandas as pd
import pytest
from PIL import Image

from neq.cli import main
from neq.data import open_source


@pytest.fixture
def photos(tmp_path):
    """Three digits as files."""
    source = open_source("digits", None, None)
    for number in range(3):
        pixels = source.image(number).permute(1, 2, 0).numpy()
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_a_folder_as_lines_and_as_a_table(tiny_run, photos, tmp_path, capsys):
    output = tmp_path / "out.csv"
    given = ["predict", str(tiny_run), str(photos), "--top", "2", "--output", str(output)]
    assert main(given) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"{output}: 3 images"
    rows = pd.read_csv(output, dtype={"class": str})
    assert list(rows.columns) == ["image", "rank", "class", "probability"]
    assert len(rows) == 6
    first = rows.iloc[:2]
    named = ", ".join(f"{row['class']} ({100 * row['probability']:.1f} %)" for _, row in first.iterrows())
    assert lines[0] == f"{photos / '0.png'}: {named}"
    assert len(lines) == 3
    assert main(given) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert main([*given, "--force"]) == 0


def test_photos_that_cannot_be_read_are_named_and_skipped(tiny_run, photos, tmp_path, capsys):
    (photos / "1.png").write_bytes(b"no image")
    output = tmp_path / "out.csv"
    assert main(["predict", str(tiny_run), str(photos), "--output", str(output)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{photos / '1.png'}: cannot be read (no known image format)"
    assert lines[-1] == f"neq: warning: 1 of 3 images cannot be read: {photos / '1.png'}"
    assert set(pd.read_csv(output)["image"]) == {str(photos / "0.png"), str(photos / "2.png")}


@pytest.mark.slow
def test_onnxruntime_gives_the_same(tiny_run, photos, capsys):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    assert main(["predict", str(tiny_run), str(photos)]) == 0
    expected = capsys.readouterr().out.splitlines()
    assert main(["predict", str(tiny_run), str(photos), "--onnx"]) == 0
    found = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in found] == [line.split(" (")[0] for line in expected]


def test_without_onnxruntime_only_onnx_is_refused(tiny_run, photos, capsys, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    absent = ("onnx", "onnxscript", "onnxruntime")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else found(name))
    assert main(["predict", str(tiny_run), str(photos)]) == 0
    assert main(["predict", str(tiny_run), str(photos), "--onnx"]) == 2
    assert "pip install 'neq[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "required: RUN_DIR, IMAGE|FOLDER"),
        (["{run}"], "required: IMAGE|FOLDER"),
        (["{run}", "gone.jpg"], "gone.jpg is neither an image file nor a folder"),
        (["{photos}", "{photos}"], "photos holds no run"),
        (["{run}", "{photos}", "--top", "0"], "a whole number from 1 on"),
        (["{run}", "{photos}", "--output", "out.txt"], "let it end in .csv"),
        (["{run}", "{photos}", "--output", "no/out.csv"], "does not exist; make it first"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(tiny_run, photos, capsys, arguments, line):
    given = [part.format(run=tiny_run, photos=photos) for part in arguments]
    assert main(["predict", *given]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1
