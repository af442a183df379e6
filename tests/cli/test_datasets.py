import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neq.cli import main
from neq.runs import read_summary
from tests.data.miniatures import jpeg, offer
from tests.data.published import small_sets


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and the data folder below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "cache" / "data"


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The listed data sets: kind, classes, place, presence."""
    assert main(["datasets"]) == 0
    table = [line.strip("│┃ ").split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row] for row in table]
    return {row[0].partition(",")[0]: row[1:] for row in cells}


def test_the_list(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    listed = rows(capsys)
    assert list(listed)[:7] == ["c10", "c100", "flowers", "food", "pets", "cub", "vww"]
    assert listed["c10"] == ["downloaded", "10", "cifar-10-batches-py", "no"]
    assert listed["cub"] == ["downloaded", "200", "CUB_200_2011", "no"]
    assert listed["vww"] == ["put there by hand", "2", "coco", "no"]
    assert listed["digits"] == ["built in", "10", "", "yes"]
    assert listed["npz"][:3] == ["your files", "as in the data", "--dataset npz:FILE"]
    assert not folder.exists()
    main(["datasets"])
    assert str(folder) in capsys.readouterr().out


def test_what_is_there(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        (folder / "cifar-10-batches-py" / name).touch()
    (folder / "cub" / "train" / "001.Albatross").mkdir(parents=True)
    (folder / "oxford-iiit-pet" / "images").mkdir(parents=True)
    (folder / "oxford-iiit-pet" / "images" / "a.jpg").touch()
    listed = rows(capsys)
    assert listed["c10"][3] == "yes"
    assert listed["cub"][2:] == ["cub/train", "yes, as image folders"]
    assert listed["pets"][3] == "in part"
    (folder / "cifar-10-batches-py" / "test_batch").unlink()
    assert rows(capsys)["c10"][3] == "in part"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["svhn", "mnist", "usps"])
def test_a_copy_of_torchvision_is_recognized(
    name: str, capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(name, folder, "http://127.0.0.1:9", monkeypatch)
    run = ["train", "--dry-run", f"--dataset={name}", "--image_size=16"]
    assert main([*run, "--velocity_images=2"]) == 0, capsys.readouterr().err
    assert "80 train" not in capsys.readouterr().out  # 16 of the 80 are held out
    assert rows(capsys)[name][3] == "yes"


def test_listing_loads_no_torch() -> None:
    code = "import sys; from neq.cli import main; main(['datasets']); sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0


BAD = {
    "no network": (["--dataset", "usps"], "cannot be downloaded"),
    "by hand": (["--dataset", "vww"], "put COCO there"),
    "no file": (["--dataset", "npz:gone.npz"], "'gone.npz' cannot be read"),
    "an alias": (["--dataset", "cub200"], "data set cub is not in"),
    "no number of gibibytes": (["--cache_gib", "0"], "cache_gib 0"),
    "unknown cache": (["--cache", "ram"], "cache 'ram' is unknown"),
    "unknown handling": (["--on_bad_image", "skp"], "did you mean 'skip'"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_line_and_code_2(
    case: str,
    tmp_path: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer("usps", tmp_path / "elsewhere", "http://127.0.0.1:9", monkeypatch)
    small_sets.offer("cub", tmp_path / "elsewhere", "http://127.0.0.1:9", monkeypatch)
    arguments, said = BAD[case]
    assert main(["train", *arguments]) == 2
    err = capsys.readouterr().err
    line = err.splitlines()[-1]  # after those that show the progress
    assert line.startswith("neq: ")
    assert said in line
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def photos(root: Path) -> None:
    for number, name in enumerate(("dark", "light")):
        for split, count in (("train", 16), ("test", 4)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                content = jpeg(100 * number + index + 20 * (split == "test"))
                (root / split / name / f"{index}.jpg").write_bytes(content)


TRAIN = ["train", "--dataset=image_folder", "--root=photos", "--image_size=16", "--base_batch_size=8"]
TRAIN += ["--net_name=mcunet-in0"]
TRAIN += ["--n_epochs=1", "--warmup_epochs=0", "--velocity_images=2", "--base_lr=0.001"]


def test_skipped_images_are_counted_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(tmp_path / "photos")
    broken = tmp_path / "photos" / "train" / "dark" / "5.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    assert main([*TRAIN, "--run-dir=run"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("neq: image 'photos/train/dark/5.jpg' cannot be read")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert main([*TRAIN, "--run-dir=run", "--on_bad_image=skip"]) == 0
    assert (
        "1 of 40 images cannot be read and are left out: photos/train/dark/5.jpg" in capsys.readouterr().out
    )
    assert read_summary(tmp_path / "run")["skipped_images"] == 1
    assert main([*TRAIN, "--run-dir=run", "--on_bad_image=skip"]) == 0
    assert "images left out │ 1, unreadable" in " ".join(capsys.readouterr().out.split())


def test_a_run_is_resumed_after_an_image_broke_and_was_put_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(tmp_path / "photos")
    assert main([*TRAIN, "--run-dir=run"]) == 0
    whole = read_summary(tmp_path / "run")
    assert whole["skipped_images"] == 0
    (tmp_path / "run" / "summary.json").unlink()
    image = tmp_path / "photos" / "train" / "dark" / "5.jpg"
    kept = image.read_bytes()
    image.write_bytes(b"")
    assert main([*TRAIN, "--run-dir=run", "--resume"]) == 2
    assert "5.jpg' cannot be read (the file is empty)" in capsys.readouterr().err
    image.write_bytes(kept)
    assert main([*TRAIN, "--run-dir=run", "--resume"]) == 0
    assert read_summary(tmp_path / "run")["test_top1"] == whole["test_top1"]


def test_the_cache_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    found = []
    for kind in ("none", "memory", "disk"):
        assert main([*TRAIN, f"--cache={kind}"]) == 0
        (run,) = tmp_path.glob("runs/**/summary.json")
        found.append(json.loads(run.read_text())["val_loss"])
        shutil.rmtree(tmp_path / "runs")
    assert len(set(found)) == 1


def test_a_numpy_archive_trains_and_names_its_run_by_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(60) % 3)
    command = [*TRAIN[3:], "--augmentation=none"]
    assert main(["train", "--dataset=npz:a.npz", *command]) == 0
    shutil.move("a.npz", "b.npz")
    assert main(["train", "--dataset=npz:b.npz", *command]) == 0
    (run,) = tmp_path.glob("runs/npz/**/summary.json")
    config = (run.parent / "config.yaml").read_text()
    assert "dataset: npz\n" in config
    assert "root: a.npz\n" in config


def test_every_kind_of_image_trains(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    folder = tmp_path / "photos" / "train" / "dark"
    image = Image.effect_noise((20, 18), 40)
    for number, mode in enumerate(("L", "LA", "RGBA", "P", "1", "CMYK", "I;16")):
        path = folder / f"{number}.{'jpg' if mode == 'CMYK' else 'png'}"
        (folder / f"{number}.jpg").unlink()
        if mode == "I;16":
            Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(path)
        else:
            image.convert(mode).save(path)
    assert main([*TRAIN, "--run-dir=run"]) == 0
    assert read_summary(tmp_path / "run")["skipped_images"] == 0
