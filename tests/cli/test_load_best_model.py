"""The book by its command: from sweep files and run folders to a file, best networks measured again."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest

from neq.cli import main
from neq.results import book_file, collect, reevaluation
from tests.results.run_folders import configs, sweep_file, write_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SMALL = """program: train_classification.py
method: grid
parameters:
  image_size: {value: 16}
  n_epochs: {value: 1}
  warmup_epochs: {value: 0}
  base_batch_size: {value: 128}
  neuron_selection: {values: [random, full]}
  initialization: {value: random}
  manual_seed: {values: [0, 1]}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep file and its four runs, trained."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(SMALL)
    former = Path.cwd()
    os.chdir(folder)
    try:
        for policy in ("random", "full"):
            for seed in ("0", "1"):
                flags = [
                    "--image_size",
                    "16",
                    "--n_epochs",
                    "1",
                    "--warmup_epochs",
                    "0",
                    "--base_batch_size",
                    "128",
                ]
                flags += ["--neuron_selection", policy, "--manual_seed", seed]
                assert main(["train", *flags]) == 0
    finally:
        os.chdir(former)
    return folder


def values(path, title):
    header, *rows = openpyxl.load_workbook(path)[title].iter_rows(values_only=True)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_a_trained_sweep_ends_in_a_book_whose_figures_are_measured_again(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    opened = []
    open_data = reevaluation.open_data
    monkeypatch.setattr(reevaluation, "open_data", lambda *given: opened.append(1) or open_data(*given))
    assert main(["results", "book", "-w", "small.yaml", "--evaluate"]) == 0
    out = capsys.readouterr().out
    assert len(opened) == 1  # four runs, one data set
    assert "4 runs: 4 done, 0 unfinished, 0 damaged, 0 missing" in out
    assert "4 best networks measured again: 4 as recorded" in out
    assert "output.xlsx: 2 settings, 2 of them new" in out
    rows = values("output.xlsx", "Summary")
    assert [(row["Method"], row["Seeds done"], row["Evaluation"]) for row in rows] == [
        ("random", 2, "as recorded"),
        ("full", 2, "as recorded"),
    ]
    recorded = [json.loads(path.read_text()) for path in sorted(Path("runs").rglob("summary.json"))]
    for row in rows:
        mine = [one for one in recorded if one["neuron_selection"] == row["Method"]]
        mean = sum(one["test_top1"] for one in mine) / 2
        assert row["test/top1 at valid/best (%)"] == pytest.approx(mean)
        assert row["Saved bytes (MiB)"] == pytest.approx(sum(one["saved_bytes"] for one in mine) / 2 / 2**20)
    for row in values("output.xlsx", "Runs"):
        assert row["test/top1 measured again (%)"] == row["test/top1 at valid/best (%)"]
        assert row["Difference (points)"] == 0


def test_a_figure_that_differs_and_a_network_that_is_gone_are_flagged(trained, here, capsys):
    subprocess.run(["cp", "-r", trained / "runs", trained / "small.yaml", "."], check=True)
    runs = collect(["small.yaml"])
    summary = runs[0].folder / "summary.json"
    said = json.loads(summary.read_text())
    summary.write_text(json.dumps({**said, "test_top1": said["test_top1"] + 1}))
    (runs[1].folder / "checkpoint/best.safetensors").write_bytes(b"nothing")
    assert main(["results", "book", "-w", "small.yaml", "--evaluate"]) == 1
    out = capsys.readouterr().out
    assert f"{runs[0].folder} differs: {said['test_top1']:.4f} % on the test set" in out
    assert f"{runs[1].folder} not measured: " in out
    assert "4 best networks measured again: 2 as recorded" in out
    rows = {(row["Method"], row["Seed"]): row for row in values("output.xlsx", "Runs")}
    assert [rows[run.config["neuron_selection"], run.seed]["Evaluation"][:12] for run in runs] == [
        "differs", "not measured", "as recorded", "as recorded",
    ]  # fmt: skip


def test_the_program_at_the_top_level_is_the_command(here):
    file = sweep_file(here / "sweep.yaml")
    for config in configs(file)[:7]:
        write_run(here / "runs", config)
    write_run(here / "runs", configs(file)[7], stopped_after=1)
    program = [sys.executable, ROOT / "load_best_model.py", "-w", "sweep.yaml", "-o", "mine.xlsx"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for new in (4, 0):
        done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "12 runs: 7 done, 1 unfinished, 0 damaged, 4 missing" in done.stdout
        assert "unfinished, 1 of 3 epochs" in done.stdout
        assert f"mine.xlsx: 4 settings, {new} of them new" in done.stdout
    assert "the earlier book is mine.xlsx.bak" in done.stdout
    assert (here / "mine.xlsx.bak").exists()


def test_torch_is_not_imported_to_write_a_book(here):
    sweep_file(here / "sweep.yaml")
    code = (
        "import sys, neq.cli; code = neq.cli.main(['results', 'book', '-w', 'sweep.yaml']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_published_commands(here, capsys):
    """Long options and file names of the published code; without arguments the policies that have runs."""
    folder = here / "policies/digits"
    folder.mkdir(parents=True)
    sweep_file(folder / "others.yaml", "ratio: {value: .7}")
    for config in configs(sweep_file(folder / "small.yaml")):
        write_run(here / "runs", config)
    assert main(["results", "book"]) == 0
    assert "sweeps with runs: policies/digits/small.yaml\n12 runs: 12 done" in capsys.readouterr().out
    published = ["--wandb_sweep_config", "policies/digits/digits_small.yaml", "--output_file", "ABC.xlsx"]
    assert main(["results", "book", *published]) == 0
    assert values("ABC.xlsx", "Summary") == values("output.xlsx", "Summary")
    assert main(["results", "book", "--runs-dir", "elsewhere"]) == 2
    assert "no run of the sweep files in policies/ is in elsewhere/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no sweep file is given, and policies/ has none"),
        (["-w"], "expected at least one argument"),
        (["-w", "nope.yaml"], "file 'nope.yaml' does not exist"),
        (["-w", "sweep.yaml", "-o", "output.csv"], "give a name that ends in .xlsx"),
        (
            ["-w", "sweep.yaml", "--runs-dir", "sweep.yaml"],
            "'sweep.yaml' is a file; give the folder of the runs",
        ),
        (["-w", "sweep.yaml", "--config-file", "nope"], "config_file 'nope' is unknown"),
        (["-w", "sweep.yaml", "--wandb", "abc"], "give ENTITY/PROJECT/SWEEP"),
        (["-w", "sweep.yaml", "--what"], "unrecognized arguments: --what"),
        (["-w", "sweep.yaml", "-o", "foreign.xlsx"], "is not a book of this version of neq"),
        (
            ["-w", "sweep.yaml", "-o", "foreign.xlsx", "--force", "--evaluate"],
            "is not a book of this version of neq",
        ),
    ],
)
def test_a_mistake_is_one_line_and_code_2_and_nothing_is_written(here, capsys, arguments, said):
    sweep_file(here / "sweep.yaml")
    content = io.BytesIO()
    openpyxl.Workbook().save(content)
    Path("foreign.xlsx").write_bytes(content.getvalue())
    assert main(["results", "book", *arguments]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert sorted(path.name for path in here.iterdir()) == ["foreign.xlsx", "sweep.yaml"]
    assert Path("foreign.xlsx").read_bytes() == content.getvalue()


def test_a_record_that_cannot_be_read_is_reported(here, capsys):
    file = sweep_file(here / "sweep.yaml", "manual_seed: {value: 0}")
    folder = write_run(here / "runs", configs(file)[0], folder="somewhere")
    (folder / "identity.json").write_text("{")
    (folder / "config.yaml").unlink()
    assert main(["results", "book", "-w", "sweep.yaml"]) == 0
    out = capsys.readouterr().out
    assert "1 run: 0 done, 0 unfinished, 0 damaged, 1 missing" in out
    assert "runs/somewhere: identity.json is damaged" in out


def test_a_run_of_others_images_is_not_measured(here, capsys):
    images = here / "photos"
    images.mkdir()
    file = sweep_file(here / "sweep.yaml")
    head = file.read_text().partition("  dataset")[0]
    file.write_text(f"{head}  dataset: {{value: image_folder}}\n  root: {{value: {images}}}\n")
    write_run(here / "runs", configs(file)[0], images="abc")
    assert main(["results", "book", "-w", "sweep.yaml", "--evaluate"]) == 1
    assert "not measured" in capsys.readouterr().out


def test_results_names_what_there_is(capsys):
    assert main(["results"]) == 0
    assert "book" in capsys.readouterr().out
    assert main(["results", "bok"]) == 2
    assert "neq results 'bok' is unknown; did you mean 'book'?" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_behind(here, monkeypatch, capsys):
    sweep_file(here / "sweep.yaml")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(book_file.BookFile, "save", stop)
    assert main(["results", "book", "-w", "sweep.yaml"]) == 130
    assert capsys.readouterr().err == "neq: stopped\n"
    assert [path.name for path in here.iterdir()] == ["sweep.yaml"]
