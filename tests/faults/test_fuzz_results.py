"""Excel books and folders of runs, damaged and hostile: one line, and nothing in them is changed."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from pathlib import Path

import openpyxl
import pytest

from neq.cli import main
from neq.results import runs as runs_of
from neq.results.best_network import load_best
from neq.results.book import check_book, write_book
from neq.runs import RunRecord, read_metrics, read_summary
from neq.runs.run_reader import recorded_runs
from neq.runs.selection_file import read_selection_history
from tests.faults.hostile import WORDS, content_of, damaged, refusal, refused, run_refused
from tests.results.run_folders import configs, sweep_file, write_run
from tests.toys import TINY_RUN, drawing


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep with two runs of one setting, and a book of them."""
    place = tmp_path_factory.mktemp("swept")
    file = sweep_file(place / "sweep.yaml", "manual_seed: {values: [0, 1]}")
    for config in configs(file):
        write_run(place / "runs", config)
    write_book(place / "book.xlsx", runs_of([file], place / "runs"))
    return place


@pytest.mark.filterwarnings("ignore")
def test_damaged_books(swept, tmp_path):
    path, refusals = tmp_path / "book.xlsx", 0
    runs = runs_of([swept / "sweep.yaml"], swept / "runs")
    for at, broken in enumerate(damaged((swept / "book.xlsx").read_bytes(), 70)):
        path.write_bytes(broken)
        line = refusal(check_book, path)
        if line is None:
            continue
        assert "book.xlsx" in line
        refusals += 1
        if at % 10 == 0:
            refused(write_book, path, runs, True, named="book.xlsx")
        assert path.read_bytes() == broken
        assert [found.name for found in tmp_path.iterdir()] == ["book.xlsx"]
    assert refusals > 40


LAUGHS = '<!DOCTYPE x [<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY a11 SYSTEM "file:///etc/hostname">'


def with_part(content: bytes, name: str, change) -> bytes:
    """A book with one of its parts changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            data = old.read(part)
            new.writestr(part.filename, change(data) if part.filename == name else data)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "part", ["xl/workbook.xml", "xl/worksheets/sheet1.xml", "xl/styles.xml", "[Content_Types].xml"]
)
def test_mutated_parts_of_a_book(swept, tmp_path, part):
    content, path = (swept / "book.xlsx").read_bytes(), tmp_path / "book.xlsx"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        whole = archive.read(part)
    for broken in damaged(whole, 25, len(part)):
        path.write_bytes(with_part(content, part, lambda _, new=broken: new))
        line = refusal(check_book, path)
        assert line is None or "book.xlsx" in line


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("head", [LAUGHS, OUTSIDE], ids=["laughs", "outside"])
@pytest.mark.parametrize("part", ["xl/styles.xml", "xl/worksheets/sheet1.xml", "xl/workbook.xml"])
def test_entities_are_not_followed(swept, tmp_path, capsys, head, part):
    path = tmp_path / "book.xlsx"

    def change(data: bytes) -> bytes:
        text = data.decode()
        start, end = text.index("<", 5 if text.startswith("<?xml") else 0), text.rindex("</")
        return f"{text[:start]}{head}]>{text[start:end]}&a11;{text[end:]}".encode()

    path.write_bytes(with_part((swept / "book.xlsx").read_bytes(), part, change))
    before = path.read_bytes()
    argv = [
        "results",
        "book",
        "-w",
        str(swept / "sweep.yaml"),
        "--runs-dir",
        str(swept / "runs"),
        "-o",
        str(path),
    ]
    run_refused(capsys, tmp_path, argv, "book.xlsx")
    assert path.read_bytes() == before


def book_with(title: str, row: int, column: int, headers: tuple[str, ...] = ()) -> bytes:
    file, book = io.BytesIO(), openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.title = title
    sheet.append(headers)
    sheet.cell(row, column).value = "x"
    book.save(file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        book_with("Summary", 1_048_576, 16_384),
        book_with("Charts", 1_048_576, 16_384),
        book_with("Summary", 1_048_576, 1, ("Key", "Model", "Method", "Settings")),
        book_with("Sheet", 3, 3),
        b"",
        b"PK\x03\x04",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    ],
    ids=range(7),
)
def test_a_foreign_book_is_refused_at_once(swept, tmp_path, capsys, content):
    (tmp_path / "book.xlsx").write_bytes(content)
    argv = ["results", "book", "-w", str(swept / "sweep.yaml"), "--runs-dir", str(swept / "runs")]
    run_refused(capsys, tmp_path, [*argv, "-o", str(tmp_path / "book.xlsx")], "book.xlsx")


def test_a_cell_far_below_our_table_is_named(swept, tmp_path):
    book = openpyxl.load_workbook(swept / "book.xlsx")
    book["Summary"].cell(1_048_576, 1).value = "x"
    book.save(tmp_path / "book.xlsx")
    assert "changes in Summary" in refused(check_book, tmp_path / "book.xlsx", named="book.xlsx")


@pytest.mark.slow
def test_a_book_that_unpacks_to_too_much_is_not_unpacked(tmp_path):
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/workbook.xml", "w") as part,
    ):
        for _ in range(300):
            part.write(bytes(2**20))
    (tmp_path / "book.xlsx").write_bytes(file.getvalue())
    assert "too large" in refused(check_book, tmp_path / "book.xlsx", named="book.xlsx")


VALUES = [
    *(None, True, 0, -1, 10**400, -(10**400), 1.5, float("nan"), float("inf"), float("-inf"), 1e308, -1e-320),
    *("x", "", "=1+1", "a\nb\x00", "\x1b[31m", [], [1], {}, {"a": {"b": 1}}, "9" * 5000, ["x"] * 100),
]


def mutated(value: dict, rng: random.Random) -> dict:
    """A record with some of its values exchanged for hostile ones, dropped, or under other names."""
    new = dict(value)
    for name in rng.sample(sorted(value), rng.choice((1, 1, 3))):
        if rng.random() < 0.2:
            del new[name]
        else:
            new[name] = rng.choice(VALUES)
    if rng.random() < 0.2:
        new[rng.choice(WORDS)] = rng.choice(VALUES)
    return new


def every_reader(place: Path, sweep: Path, out: Path) -> None:
    """All that is done with a folder of runs, short of training and of measuring again."""
    for number, command in enumerate(
        (
            ["book", "-w", str(sweep), "-o", str(out / "book.xlsx")],
            ["best", str(sweep)],
            ["compare", str(sweep)],
            ["plot", str(sweep), "-o", str(out / "pictures")],
            ["table", str(sweep), "--csv", str(out / "runs.csv"), "--force"],
        )
    ):
        if number == 3 and (out / "no pictures").exists():
            continue
        code = main(["results", *command, "--runs-dir", str(place)])
        assert code in (0, 2), command


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(8))
def test_hostile_records(swept, tmp_path, capsys, seed):
    """Hostile values in summary.json and identity.json never end a reader with a fault."""
    shutil.copytree(swept / "runs", tmp_path / "runs")
    (tmp_path / "out").mkdir()
    if seed > 1:  # drawing takes a second
        (tmp_path / "out" / "no pictures").touch()
    folders = sorted(path.parent for path in (tmp_path / "runs").rglob("identity.json"))
    rng = random.Random(seed)
    for _ in range(5):
        for folder in folders[: rng.choice((1, 2))]:
            name = rng.choice(("summary.json", "summary.json", "identity.json"))
            original = json.loads((swept / "runs" / folder.relative_to(tmp_path / "runs") / name).read_text())
            (folder / name).write_text(json.dumps(mutated(original, rng)))
        before = content_of(tmp_path / "runs")
        every_reader(tmp_path / "runs", swept / "sweep.yaml", tmp_path / "out")
        assert content_of(tmp_path / "runs") == before
        assert "Traceback" not in capsys.readouterr().err


FILES = ("identity.json", "summary.json", "config.yaml", "classes.json", "recipe.json", "metrics.jsonl")
BROKEN = [
    *(
        b"",
        b"\xff\xfe",
        b"\x00" * 100,
        b"null",
        b"[]",
        b"{",
        b'"x"',
        b"1e999",
        b"[" * 200_000,
        b'{"a":' * 100_000,
    ),
    *(b"{}", b"\n\n", b'{"epochs": 0}\n[]\n', b'{"epochs": 0}\n3\n', b'{"epochs": "x"}\n', b"9" * 5000),
    b'{"epochs": 0}\n\xff\n',
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_broken_files_of_a_run(tiny_run, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    record = RunRecord(folder)
    identity = json.loads((folder / "identity.json").read_text())
    contents = [*BROKEN, *damaged((folder / name).read_bytes(), 20)]
    for content in contents:
        (folder / name).write_bytes(content)
        before = content_of(folder)
        found = recorded_runs(tmp_path)
        assert len(found) == 1
        assert found[0].reason.isprintable()
        for call in (
            lambda: read_metrics(folder),
            lambda: read_summary(folder),
            lambda: load_best(folder),
            lambda: record.check(identity, True, False),
            lambda: record.check_unstarted(),
        ):
            line = refusal(call)
            assert line is None or str(folder) in line, line
        assert content_of(folder) == before
        line = refusal(record.rewind, 1)
        assert line is None or str(folder) in line


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["table.json", "00000.npz"])
def test_broken_selections(tiny_run, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    path = folder / "selection" / name
    whole = path.read_bytes()
    contents = [*BROKEN, *damaged(whole, 40, 1)]
    if name == "table.json":
        table = json.loads(whole)
        for value in VALUES:
            contents.append(json.dumps({**table, "layers": value}).encode())
            for key in ("name", "neurons"):
                contents.append(
                    json.dumps(
                        {"layers": [{**table["layers"][0], key: value}, *table["layers"][1:]]}
                    ).encode()
                )
    for content in contents:
        path.write_bytes(content)
        line = refusal(read_selection_history, folder)
        assert line is None or str(folder) in line


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_broken_run_through_the_commands(tiny_run, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / ".lock").unlink(missing_ok=True)
    again = ["train", *TINY_RUN, "--run-dir", "run"]
    for content in (b"\xff\xfe\n", b"[" * 200_000 + b"\n", b"[]\n"):
        (tmp_path / "run" / name).write_bytes(content)
        if name in ("config.yaml", "classes.json", "recipe.json"):
            run_refused(capsys, tmp_path, ["export", "run", "--onnx", "x.onnx"], name)
            continue
        for picture in (tmp_path / "run").glob("*.png"):  # drawn again, from what cannot be read
            picture.unlink()
        with drawing():
            run_refused(capsys, tmp_path / "run" / "checkpoint", again, str(Path("run") / name))


def test_a_summary_of_something_else_is_one_line(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "run")
    whole = json.loads((tmp_path / "run" / "summary.json").read_text())
    for change in (
        {"budget": "x"},
        {"test_top1": None},
        {"trained_beside_max": [1]},
        {"epochs": {}, "saved_bytes": {}},
    ):
        (tmp_path / "run" / "summary.json").write_text(json.dumps({**whole, **change}))
        run_refused(
            capsys, tmp_path / "run" / "checkpoint", ["train", *TINY_RUN, "--run-dir", "run"], "summary.json"
        )
