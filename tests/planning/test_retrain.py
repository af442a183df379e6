"""Retraining on a sequence of tasks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

import tests.planning.toy_network  # noqa: F401  (registers toy:NAME)
from neq.networks.build import build_network
from neq.planning.delta import DeltaStore
from neq.planning.retrain import STORED, retrain
from neq.planning.sequence import read_sequence
from neq.planning.sequence_record import RECORD, TABLE
from neq.runs import load_run, read_summary
from neq.utils.errors import UserError
from tests.planning.killing import killed_and_finished

SHORT = (
    'augmentation: none, net_name: "toy:net", ratio: .5, base_batch_size: 30, warmup_epochs: 0, n_epochs: 1, '
    "base_lr: .05"
)
TASKS = "[{corruption: gaussian_noise:5}, {corruption: contrast:4, labelled: .5}]"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 digits."""
    path, digits = tmp_path_factory.mktemp("data") / "digits.npz", load_digits()
    np.savez(path, x=np.round(digits.images[:200] * 15).astype(np.uint8), y=digits.target[:200])
    return path


def sequence_file(folder: Path, images: Path, tasks: str = TASKS, **more: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "shifts.yaml"
    lines = {"common": f"{{dataset: 'npz:{images}', {SHORT}}}", "tasks": tasks, **more}
    path.write_text("\n".join(f"{key}: {value}" for key, value in lines.items()))
    return path


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    sequence = read_sequence(sequence_file(folder, images, store_rate=".2"))
    retrain(sequence, folder / "out")
    return folder / "out"


def results(out: Path) -> dict[str, bytes]:
    """What must be the same however often it was interrupted."""
    files = [out / RECORD, out / TABLE, *out.glob("*/checkpoint/best.safetensors"), *out.glob("stored/*")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_each_task_is_a_run_that_starts_from_the_one_before(whole: Path) -> None:
    names = ["00_source", "01_gaussian_noise-5", "02_contrast-4", "03_contrast-4_unlabelled"]
    assert [path.name for path in sorted(whole.glob("0*"))] == names
    runs = [load_run(whole / name) for name in names]
    assert all(run.is_finished for run in runs)
    weights = [run.config.net_config.weights for run in runs]
    assert weights == ["default", *(str(run.best_weights) for run in runs[:-1])]
    assert [run.config.objective for run in runs] == [*["classification"] * 3, "tent"]


def test_the_record_has_accuracies_on_all_tasks_so_far(whole: Path) -> None:
    record = json.loads((whole / RECORD).read_text())
    stages = record["stages"]
    so_far = ["source", "gaussian_noise-5", "contrast-4"]
    assert [list(stage["top1"]) for stage in stages] == [so_far[:1], so_far[:2], so_far, so_far]
    # The same figures as the runs' own, on the same photos in the same way.
    for stage in stages:
        summary = read_summary(whole / stage["name"])
        assert stage["top1"][stage["task"]] == pytest.approx(summary["test_top1"], abs=1e-9)
    assert record["source"] == {task: record["source"][task] for task in so_far}
    assert record["source"]["source"] == stages[0]["top1"]["source"]
    assert list(record["statistics"]) == so_far
    online = load_run(whole / stages[3]["name"]).metrics[0]["train"]["train/top1"]
    assert [stage["online_top1"] for stage in stages] == [None, None, None, online]
    table = [line.split(",") for line in (whole / TABLE).read_text().splitlines()]
    assert table[0] == ["network", *so_far]
    assert [row[0] for row in table[1:4]] == ["source", "statistics alone", "after 01_gaussian_noise-5"]
    assert table[-1][1:] == [f"{value:.2f}" for value in stages[-1]["top1"].values()]


def test_what_is_stored_restores_the_network(whole: Path) -> None:
    record = json.loads((whole / RECORD).read_text())
    stored = [stage["stored"] for stage in record["stages"]]
    for each in stored:
        assert (whole / each["file"]).stat().st_size == each["bytes"]
    assert stored[0]["top1"] == record["stages"][0]["top1"]["source"]
    network = build_network("toy:net", 10)
    network.load_state_dict(DeltaStore(whole / STORED).state())
    best = load_file(load_run(whole / "03_contrast-4_unlabelled").best_weights)
    for name in ("head.weight", "first.1.running_mean"):  # kept whole
        assert torch.equal(network.state_dict()[name], best[name])
    assert not torch.equal(network.state_dict()["first.0.weight"], best["first.0.weight"])


def test_no_photo_changes_its_split_and_labels_are_seen_once(images: Path, whole: Path) -> None:
    from neq.data import run_source
    from neq.data.splits import split

    parts = []
    for path in sorted(whole.glob("0*")):
        config = load_run(path).config
        parts.append(split(run_source(config.data_provider), config.data_provider, config.manual_seed))
    tested = [set(part["test"]) for part in parts]
    trained = [set(part["train"]) for part in parts]
    trained[3] |= set(parts[3]["velocity"])  # taken from training where nothing is validated
    assert all(each == tested[0] for each in tested)
    assert len(tested[0]) == 100
    assert len(trained[0]) == 60
    assert trained[0] == trained[1] == trained[2] | trained[3]
    assert not trained[2] & trained[3]


def test_a_second_call_trains_nothing(whole: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    monkeypatch.setattr("neq.planning.retrain.run_training", None)
    sequence = read_sequence(whole.parent / "shifts.yaml")
    record = retrain(sequence, whole)
    assert len(record.stages) == 4
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


@pytest.mark.slow
def test_killed_at_any_file_it_continues_bit_for_bit(
    whole: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, out = read_sequence(whole.parent / "shifts.yaml"), tmp_path / "out"
    kills = killed_and_finished(
        monkeypatch, (1, 2, 9, 14, 3, 17, 1, 4, 11, 2), lambda: retrain(sequence, out)
    )
    assert kills >= 6
    assert results(out) == results(whole)


def test_tasks_may_be_added_but_not_changed(whole: Path, images: Path, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(whole, out)
    longer = TASKS.replace("]", ", {corruption: fog:3}]")
    other = read_sequence(
        sequence_file(
            tmp_path / "other",
            images,
            TASKS.replace("noise:5", "noise:4, name: gaussian_noise-5"),
            store_rate=".2",
        )
    )
    with pytest.raises(
        UserError, match=r"01_gaussian_noise-5: corruption is 'gaussian_noise:5' there, 'g.*:4'"
    ):
        retrain(other, out)
    with pytest.raises(UserError, match="01_gaussian_noise-5 is not in its place"):
        retrain(read_sequence(sequence_file(tmp_path / "b", images, "[{name: x, corruption: fog:1}]")), out)
    assert results(out) == results(whole)
    record = retrain(read_sequence(sequence_file(tmp_path / "longer", images, longer, store_rate=".2")), out)
    assert [stage.name for stage in record.stages][-1] == "04_fog-3"
    assert record.stages[:4] == retrain(read_sequence(whole.parent / "shifts.yaml"), whole).stages


def test_a_source_taken_as_it_is(images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(build_network("toy:net", 10, seed=3).state_dict(), weights)
    file = sequence_file(tmp_path, images, "[{corruption: fog:1}]", source="{train: false}")
    file.write_text(file.read_text().replace("ratio", f"weights: {weights}, ratio"))
    record = retrain(read_sequence(file), tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").glob("0*"))] == ["01_fog-1"]
    assert load_run(tmp_path / "out" / "01_fog-1").config.net_config.weights == str(weights)
    assert record.stages[0].objective == ""
    assert record.stages[0].top1["source"] == record.source["source"]


def test_a_network_without_batch_norm_has_no_row_of_statistics(images: Path, tmp_path: Path) -> None:
    file = sequence_file(tmp_path, images, "[{corruption: fog:1}]")
    file.write_text(file.read_text().replace("toy:net", "toy:plain"))
    record = retrain(read_sequence(file), tmp_path / "out")
    assert record.statistics == {}
    assert list(record.source) == ["source", "fog-1"]


def domains(folder: Path, classes: tuple[str, ...], seed: int) -> None:
    """Photos in DOMAIN/{train,test}/CLASS."""
    random = np.random.default_rng(seed)
    for split, count in (("train", 8), ("test", 3)):
        for label, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                grey = random.integers(0, 60, (12, 12, 3)) + 90 * label
                Image.fromarray(grey.astype(np.uint8)).save(folder / split / name / f"{number}.png")


def folder_sequence(tmp_path: Path) -> Path:
    path = tmp_path / "domains.yaml"
    common = SHORT.replace("toy:net", "mcunet-in0")
    path.write_text(
        f"common: {{dataset: image_folder, {common}, image_size: 16, split_shares: null, "
        "velocity_images: 1, validation_percentage: .25}\n"
        f"source: {{root: {tmp_path / 'photo'}}}\ntasks: [{{root: {tmp_path / 'sketch'}}}]\n"
        "config_file: transfer\n"
    )
    return path


def test_domains_in_folders_keep_their_splits(tmp_path: Path) -> None:
    for seed, name in enumerate(("photo", "sketch")):
        domains(tmp_path / name, ("cat", "dog"), seed)
    record = retrain(read_sequence(folder_sequence(tmp_path)), tmp_path / "out")
    assert [stage.task for stage in record.stages] == ["source", "sketch"]
    run = load_run(tmp_path / "out" / "01_sketch")
    assert run.classes == ("cat", "dog")
    assert record.stages[1].top1.keys() == {"source", "sketch"}


def test_data_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "out"

    def refusal(file: Path, folder: Path = out) -> str:
        with pytest.raises(UserError) as caught:
            retrain(read_sequence(file), folder)
        return str(caught.value)

    domains(tmp_path / "photo", ("cat", "dog"), 0)
    file = folder_sequence(tmp_path)
    assert f"sketch: root '{tmp_path / 'sketch'}' is not a folder" in refusal(file)
    domains(tmp_path / "sketch", ("cat", "horse"), 1)
    line = refusal(file)
    assert "sketch: its classes are 2 (cat, horse), those of the source 2 (cat, dog)" in line
    inside = refusal(file, tmp_path / "photo" / "out")
    assert "lies inside the images of root" in inside
    assert "fogg-1: corruption 'fogg' is unknown; did you mean 'fog'?" in refusal(
        sequence_file(tmp_path / "a", images, "[{corruption: fogg:1}]")
    )
    assert not out.exists()
    assert not (tmp_path / "photo" / "out").exists()
    out.mkdir()
    (out / "notes.txt").touch()
    assert "holds 'notes.txt' and no sequence.json" in refusal(sequence_file(tmp_path / "b", images))
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert "is a file" in refusal(sequence_file(tmp_path / "b", images), out / "notes.txt")
