"""The teacher that a run's settings name: the folder of a run, or a network by name with its weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

import neq
from neq.config import resolve
from neq.networks.build import build_network
from neq.results.best_network import load_best
from neq.runs import identity
from neq.utils.errors import UserError

STUDENT = {
    **{"dataset": "digits", "image_size": 16, "n_epochs": 1, "warmup_epochs": 0, "base_batch_size": 128},
    **{"net_name": "resnet20", "neuron_selection": "random", "ratio": 0.1, "device": "cpu"},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a run of another seed."""
    folder = tmp_path_factory.mktemp("teacher")
    return neq.train("transfer", **STUDENT, manual_seed=3, run_dir=folder / "run").folder


@pytest.mark.slow
def test_a_run_teaches_another_one_and_its_content_names_it(teacher, tmp_path):
    lines = []
    settings = {**STUDENT, "teacher": teacher, "distill_weight": 1.0}
    run = neq.train("transfer", runs=tmp_path, notes=lines.append, **settings)
    assert run.metrics[0]["train"]["train/loss"] >= 0
    named = run.identity
    assert named["teacher"].startswith("sha256:")
    # The recorded configuration repeats it, and a copy of the teacher elsewhere is the same one.
    shutil.copytree(teacher, tmp_path / "copy")
    moved = resolve({}, {**STUDENT, "teacher": str(tmp_path / "copy"), "distill_weight": 1.0}).config
    assert identity(moved)["teacher"] == named["teacher"]
    assert (
        neq.train("transfer", runs=tmp_path, **{**settings, "teacher": tmp_path / "copy"}).folder
        == run.folder
    )
    other = neq.train("transfer", runs=tmp_path, **STUDENT)
    assert other.folder != run.folder
    assert "teacher" not in other.identity


@pytest.mark.slow
def test_a_named_network_with_weights_teaches(teacher, tmp_path):
    save_file(load_best(teacher).network.state_dict(), tmp_path / "w.safetensors")
    settings = {**STUDENT, "teacher": "resnet20", "teacher_weights": tmp_path / "w.safetensors"}
    run = neq.train("transfer", runs=tmp_path, **settings, feature_weight=0.1)
    assert run.identity["teacher"] == "resnet20"
    assert run.identity["teacher_weights"].startswith("sha256:")


def refusal(tmp_path, **settings):
    """The line by which a run is refused; nothing is written."""
    with pytest.raises(UserError) as caught:
        neq.train("transfer", runs=tmp_path / "runs", **{**STUDENT, **settings})
    assert not (tmp_path / "runs").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_teacher_is_refused_in_one_line(teacher, tmp_path):
    save_file(build_network("resnet20", 7).state_dict(), tmp_path / "seven.safetensors")
    seven = {"teacher_weights": tmp_path / "seven.safetensors"}
    assert "teacher_weights needs the network" in refusal(tmp_path, **seven)
    assert "has a head of 7 classes, the data set has 10" in refusal(tmp_path, teacher="resnet20", **seven)
    assert "not allowed with the folder of a run" in refusal(tmp_path, teacher=teacher, **seven)
    assert "give --teacher_weights FILE" in refusal(tmp_path, teacher="resnet20")
    assert "did you mean 'resnet20'" in refusal(tmp_path, teacher="resnet2")
    assert "holds no run" in refusal(tmp_path, teacher=tmp_path)
    assert "a budget in time does not count the teacher" in refusal(
        tmp_path, teacher=teacher, ratio=None, budget="30ms"
    )
    assert "temperature 0 is not allowed" in refusal(tmp_path, teacher=teacher, temperature=0)
    assert "distill_weight 2 is not allowed" in refusal(tmp_path, teacher=teacher, distill_weight=2)


def test_a_teacher_of_other_classes_is_refused(teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "renamed")
    names = json.loads((teacher / "classes.json").read_text())
    (tmp_path / "renamed" / "classes.json").write_text(json.dumps(names[::-1]))
    line = refusal(tmp_path, teacher=tmp_path / "renamed")
    assert "has the classes 9, 8, 7, 6 and 6 more, the data set has 0, 1, 2, 3 and 6 more" in line


def test_weights_that_were_not_written_whole_are_refused(teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "checkpoint" / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "best.safetensors" in refusal(tmp_path, teacher=tmp_path / "damaged")
    assert torch.is_grad_enabled()
