"""Weights of source images by a classifier of domains."""

import torch

from neq.adaptation.covariate_shift import domain_weights
from neq.training import restore, train
from tests.adaptation.runs import adaptation, domains


def test_images_that_look_like_the_target_count_more():
    torch.manual_seed(0)
    like, unlike = torch.randn(100, 2) + 1, torch.randn(100, 2) - 3
    weights = domain_weights(torch.cat([like, unlike]), torch.randn(150, 2) + 1)
    assert torch.allclose(weights.mean(), torch.tensor(1.0))
    assert weights[:100].mean() > 3 * weights[100:].mean()
    same = domain_weights(torch.randn(150, 2), torch.randn(150, 2))
    assert same.std() < 0.2 < weights.std()


def test_a_run_weighs_each_image_by_its_number_and_resumes(tmp_path):
    files, lines = domains(tmp_path), []
    with adaptation(tmp_path / "run", "reweighted", files) as (run, _):
        run.task._notes = lines.append
        batches = list(run.task.batches(0, 0))
        weights = run.task.state()["weights"]
        numbers = [*run.data.train_numbers(0), *run.data.train_numbers(1)]  # the smaller domain repeats
        assert len(batches) > run.data.steps_per_epoch
        for (_, _, own), mine in zip(batches, numbers, strict=False):
            assert torch.equal(weights[mine], own)
        later = list(run.task.batches(0, 2))
        assert all(torch.equal(*pair) for pair in zip(later[0], batches[2], strict=True))
        (part, share), _ = run.task.micro_batches(batches[0], 2)
        assert share == 0.5
        assert torch.equal(part[2], batches[0][2][:16])
        train(run)
    assert len(lines) == 1
    assert lines[0].startswith("weights of 160 source images: as varied as ")
    with adaptation(tmp_path / "run", "reweighted", files) as (run, _):
        restore(run, run.checkpoints.load_last())
        assert torch.equal(run.task.state()["weights"], weights)
