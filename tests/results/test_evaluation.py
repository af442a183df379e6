"""The evaluation that is kept beside a run."""

import shutil

import pytest
import safetensors.torch
import torch

from neq.cli import main
from neq.results import evaluation as module
from neq.results.best import copy_best
from neq.results.best_network import load_best
from neq.results.evaluation import evaluation
from neq.runs import load_run
from neq.runs.layout import EVALUATION
from neq.utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tiny_run, tmp_path_factory):
    """A run's folder with its evaluation, and the evaluation."""
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("evaluated") / "run")
    return folder, evaluation(folder, CPU)


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "run")


def same(one, other):
    tensors = module._TENSORS
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
    return (one.classes, one.names, one.steps) == (other.classes, other.names, other.steps)


def test_it_is_what_the_run_recorded(made, tiny_run):
    folder, found = made
    count = len(found.labels)
    assert 100 * int((found.predicted == found.labels).sum()) / count == load_run(folder).summary["test_top1"]
    assert found.logits.shape == (count, 10)
    assert found.features.shape == (count, load_best(tiny_run).network.classifier.in_features)
    head = load_best(tiny_run).network.classifier
    assert torch.allclose(head(found.features), found.logits, atol=1e-4)
    assert found.featured.tolist() == list(range(count))
    assert len(set(found.names)) == count
    assert found.names[0].startswith("image ")


def test_the_photos_are_the_surest_wrong_ones(made):
    _, found = made
    shares, predicted = found.probabilities.max(1)
    wrong = (predicted != found.labels).nonzero().flatten()
    expected = wrong[shares[wrong].sort(descending=True, stable=True).indices][: module.WRONG]
    assert shares[found.wrong].tolist() == shares[expected].tolist()
    assert found.photos.shape == (len(expected), 3, module.SIDE, module.SIDE)
    assert found.photos.float().std() > 10


def test_it_is_read_and_not_made_again(run, made, monkeypatch):
    monkeypatch.setattr(module, "evaluate", None)
    assert same(evaluation(run, CPU), made[1])


@pytest.mark.parametrize("change", ["weights", "version", "damaged", "cut"])
def test_it_is_made_again_for_other_weights_versions_and_damaged_files(run, made, monkeypatch, change):
    path, weights = run / EVALUATION, run / "checkpoint" / "best.safetensors"
    if change == "weights":
        tensors = safetensors.torch.load_file(weights)
        tensors["classifier.bias"] += 1
        safetensors.torch.save_file(tensors, weights)
    elif change == "version":
        monkeypatch.setattr(module, "VERSION", "2")
    elif change == "damaged":
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(path.read_bytes()[:100])
    calls = []
    monkeypatch.setattr(module, "evaluate", lambda best, device: calls.append(best) or made[1])
    lines = []
    evaluation(run, CPU, lines.append)
    assert len(calls) == 1
    assert lines == [f"{run}: evaluating the test split of digits"]
    evaluation(run, CPU)
    assert len(calls) == 1


def test_a_folder_that_cannot_be_written_is_no_obstacle(run, made, monkeypatch):
    (run / EVALUATION).unlink()
    (run / EVALUATION).mkdir()
    monkeypatch.setattr(module, "evaluate", lambda *_: made[1])
    lines = []
    assert evaluation(run, CPU, lines.append) is made[1]
    assert "cannot be written" in lines[-1]


def test_of_a_copy_too(run, made, tmp_path):
    copy_best(run, tmp_path / "copy")
    assert same(evaluation(tmp_path / "copy", CPU), made[1])


def test_other_images_than_those_of_the_run_are_refused(run):
    (run / EVALUATION).unlink()
    text = (run / "identity.json").read_text()
    (run / "identity.json").write_text(text.replace("{", '{"data_fingerprint": "another",', 1))
    with pytest.raises(UserError, match="these are not the images it was trained on"):
        evaluation(run, CPU)


@pytest.mark.slow
def test_a_run_that_starts_again_drops_it(run):
    from tests.toys import TINY_RUN

    assert main(["train", *TINY_RUN, "--run-dir", str(run), "--overwrite"]) == 0
    assert not (run / EVALUATION).exists()


@pytest.mark.slow
def test_of_an_adaptation_the_target_is_evaluated(tmp_path):
    from tests.adaptation.runs import domains

    source, target = domains(tmp_path)
    settings = ["--net_name", "mcunet-in0", "--image_size", "16", "--n_epochs", "1", "--device", "cpu"]
    folder = tmp_path / "run"
    given = ["adapt", "--source", source, "--target", target, *settings, "--run-dir", str(folder)]
    assert main(given) == 0
    found = evaluation(folder, CPU)
    assert len(found.labels) == 30
    hits = int((found.predicted == found.labels).sum())
    assert 100 * hits / 30 == pytest.approx(load_run(folder).summary["test_top1"])
