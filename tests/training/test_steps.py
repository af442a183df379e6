"""A step in micro-batches, and its clipping."""

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from neq.tasks import Classification
from neq.training import train
from neq.utils.errors import UserError
from tests.toys import toy
from tests.training.runs import run_of

SETTINGS = {"neuron_selection": "random", "ratio": 0.5, "base_batch_size": 128, "n_epochs": 1}


def trained(folder, **settings):
    """The losses and the network of a run, and its summary."""
    with run_of(folder, **{**SETTINGS, **settings}) as (run, diary):
        summary = train(run)
        losses = [report.metrics["train"]["train/loss"] for report in diary.reports]
        return torch.tensor(losses), run.network.state_dict(), summary


def assert_same(found, expected, tolerance):
    losses, network, _ = found
    assert torch.allclose(losses, expected[0], rtol=tolerance)
    for name, value in expected[1].items():
        if "num_batches" not in name:
            assert torch.allclose(network[name], value, rtol=tolerance, atol=tolerance), name


def kept_of(found):
    """Bytes kept for backward beside the images of the batch, which are there anyway."""
    return found[2]["saved_bytes"] - 128 * 3 * 12 * 12 * 4


@pytest.mark.slow
def test_with_frozen_norms_micro_batches_change_nothing(tmp_path):
    settings = {"norm_mode": "frozen", "base_lr": 0.001}
    whole = trained(tmp_path / "whole", **settings)
    for images, largest in ((128, 128), (50, 43), (16, 16)):
        found = trained(tmp_path / str(images), micro_batch_size=images, **settings)
        assert_same(found, whole, 2e-4)
        assert kept_of(found) <= kept_of(whole) * largest / 128 + 512
        assert found[2]["val_top1"] is not None


class Dropping(nn.Module):
    """A network that drops values, maps and branches."""

    def __init__(self):
        super().__init__()
        self.toy = toy(0, torch.float32, classes=10)
        self.toy.hidden = nn.Sequential(nn.Dropout(0.2), self.toy.hidden)
        self.toy.norm3 = nn.Sequential(self.toy.norm3, nn.Dropout2d(0.2), StochasticDepth(0.2, "row"))

    def forward(self, x):
        return self.toy(x)


@pytest.mark.slow
def test_dropout_depends_on_no_way_of_computing(tmp_path):
    settings = {"norm_mode": "frozen", "base_lr": 0.01}
    whole = trained(tmp_path / "whole", network=Dropping(), **settings)
    for name, more in (("parts", {"micro_batch_size": 50}), ("segments", {"checkpoint_segments": 4})):
        found = trained(tmp_path / name, network=Dropping(), **settings, **more)
        assert_same(found, whole, 2e-4 if name == "parts" else 1e-6)
    other = trained(tmp_path / "seed", network=Dropping(), **settings, manual_seed=1)
    assert not torch.allclose(other[0], whole[0], rtol=1e-3)


def test_segments_change_nothing_but_what_is_kept(tmp_path):
    settings = {"norm_mode": "frozen", "base_lr": 0.01, "neuron_selection": "velocity"}
    found = trained(tmp_path / "segments", checkpoint_segments=3, **settings)
    whole = trained(tmp_path / "whole", **settings)
    assert torch.equal(found[0], whole[0])
    assert all(torch.equal(value, whole[1][name]) for name, value in found[1].items())
    assert 0 < found[2]["saved_bytes"] < whole[2]["saved_bytes"]


@pytest.mark.slow
def test_with_ghost_batches_micro_batches_change_nothing(tmp_path):
    settings = {"norm_mode": "train", "ghost_batch_size": 16, "base_lr": 0.01}
    whole = trained(tmp_path / "whole", **settings)
    for images in (64, 16):
        assert_same(trained(tmp_path / str(images), micro_batch_size=images, **settings), whole, 2e-4)
    other = trained(tmp_path / "other", **{**settings, "ghost_batch_size": None})
    assert not torch.allclose(other[1]["norm3.running_var"], whole[1]["norm3.running_var"], rtol=1e-2)


def test_the_loss_and_counts_are_those_of_the_batch(tmp_path):
    with run_of(tmp_path, **SETTINGS, micro_batch_size=50, norm_mode="frozen") as (run, _):
        batch = next(run.task.batches(0, 0))
        parts = list(run.task.micro_batches(batch, run.parts))
        assert [len(part[1]) for part, _ in parts] == [43, 43, 42]
        assert sum(share for _, share in parts) == pytest.approx(1)
        assert torch.equal(torch.cat([part[0] for part, _ in parts]), batch[0])


@pytest.mark.parametrize("most", [0.01, 1e9])
def test_the_gradient_is_clipped_as_a_whole(tmp_path, monkeypatch, most):
    norms = []
    real = nn.utils.clip_grad_norm_

    def clip(parameters, limit):
        before = real(parameters, limit)
        norms.append((float(before), float(nn.utils.get_total_norm([each.grad for each in parameters]))))
        return before

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", clip)
    settings = {**SETTINGS, "norm_mode": "frozen", "n_epochs": 1}
    found = trained(tmp_path / "clipped", **settings, grad_clip_norm=most, micro_batch_size=50)
    assert norms
    for before, after in norms:
        assert after == pytest.approx(min(before, most), rel=1e-4)
    same = torch.equal(found[0], trained(tmp_path / "not", **settings, micro_batch_size=50)[0])
    assert same == (most == 1e9)


class Whole(Classification):
    """Classification that never cuts a batch."""

    has_micro_batches = False


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"micro_batch_size": 8}, Whole, "Whole does not cut its batches"),
        ({"micro_batch_size": 24, "ghost_batch_size": 16}, Classification, "must be a multiple of 16"),
        ({"micro_batch_size": 48, "ghost_batch_size": 16}, Classification, "must be a multiple of 16"),
        ({"checkpoint_cuts": ["nowhere"]}, Classification, "cut point 'nowhere' is unknown"),
    ],
)
def test_a_step_that_cannot_be_is_refused(tmp_path, settings, task, message):
    with (
        run_of(tmp_path, **SETTINGS, **settings, learned=task) as (run, _),
        pytest.raises(UserError) as raised,
    ):
        run.check_step()
    assert message in str(raised.value)


def test_a_forward_for_each_part_is_allowed_and_no_more(tmp_path):
    class Twice(Classification):
        def step(self, forward, batch):
            forward(batch[0])
            return super().step(forward, batch)

    settings = {**SETTINGS, "micro_batch_size": 8, "norm_mode": "frozen"}
    message = "calls forward 2 times in a step"
    with run_of(tmp_path, **settings, learned=Twice) as (run, _), pytest.raises(ValueError, match=message):
        train(run)
