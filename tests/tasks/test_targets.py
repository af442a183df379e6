"""Label smoothing, class weights, mixup and CutMix against torch and values by hand."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from neq.config import dataset, resolve
from neq.data import open_data
from neq.tasks import Classification
from neq.tasks.classification import cross_entropy
from neq.tasks.targets import Mixing, Targets, balanced_weights, draw_mixing
from neq.training import train
from neq.training.distributed import SINGLE_PROCESS
from neq.utils.errors import UserError
from tests.training.distributed.test_collectives import double_toy
from tests.training.distributed.together import assert_two_are_one
from tests.training.runs import BASE, run_of, stopped_and_resumed

ALL = {"label_smoothing": 0.1, "class_weights": "balanced", "mixup": 0.4, "cutmix": 1.0}
SETTINGS = {"neuron_selection": "random", "n_epochs": 2}
CPU = torch.device("cpu")
OUTPUTS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 3, 2, 1])


class Labels:
    """Data of one batch whose labels are LABELS, or some of them."""

    classes = ("a", "b", "c", "d")

    def __init__(self, rank=0, processes=1, labels=LABELS):
        self.own, self.labels = slice(rank, None, processes), labels

    def whole_train_labels(self, epoch):
        return self.labels[None]


def targets_of(data, smoothing=0.0, weights=None, mixup=0.0, cutmix=0.0, images=None):
    """Images, labels and targets of the one batch."""
    targets = Targets(data, smoothing, weights, mixup, cutmix, seed=3)
    if images is None:
        images = torch.zeros(len(data.labels), 3, 8, 8)
    return next(targets.of_batches([(images[data.own], data.labels[data.own])], 0, 0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 4.0])])
def test_the_loss_is_that_of_torch(smoothing, weights):
    _, labels, targets = targets_of(Labels(), smoothing, weights)
    expected = F.cross_entropy(
        OUTPUTS, LABELS, None if weights is None else weights.double(), label_smoothing=smoothing
    )
    torch.testing.assert_close(cross_entropy(OUTPUTS, targets), expected, rtol=1e-6, atol=0)
    assert torch.equal(labels, LABELS)


def test_class_weights_divide_by_their_sum_and_not_by_the_images():
    weights = torch.tensor([0.5, 2.0, 1.0, 4.0])
    _, _, targets = targets_of(Labels(), weights=weights)
    faulty = (weights[LABELS] * F.cross_entropy(OUTPUTS, LABELS, reduction="none")).mean()
    assert abs(cross_entropy(OUTPUTS, targets) - faulty) > 0.1
    _, _, twice = targets_of(Labels(), weights=2 * weights)
    torch.testing.assert_close(twice, targets)


def test_balanced_weights_make_classes_weigh_the_same():
    images = torch.tensor([10, 30, 0, 60])
    weights = balanced_weights(images)
    assert weights.tolist() == pytest.approx([100 / 30, 100 / 90, 0, 100 / 180])
    assert (weights * images).tolist() == pytest.approx([100 / 3, 100 / 3, 0, 100 / 3])


@pytest.mark.parametrize("settings", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.3, "cutmix": 2.0}])
def test_the_loss_of_a_mixture_is_the_convex_sum_of_the_losses_of_both_labels(settings):
    images = torch.arange(6.0)[:, None, None, None].expand(6, 3, 32, 32)
    mixed, labels, targets = targets_of(Labels(), images=images, **settings)
    partners = (torch.arange(6) + 3) % 6
    # An image's own pixels have the value of its number: their share is that of its label.
    own = (mixed.double() - partners[:, None, None, None]).mean((1, 2, 3)) / (torch.arange(6) - partners)
    losses = [F.cross_entropy(OUTPUTS, each, reduction="none") for each in (LABELS, LABELS[partners])]
    expected = (own * losses[0] + (1 - own) * losses[1]).mean()
    torch.testing.assert_close(cross_entropy(OUTPUTS, targets), expected, rtol=1e-5, atol=0)
    assert 0 < own.min() <= own.max() <= 1
    assert len(own.unique()) > 3  # each image draws its own
    assert torch.equal(labels, torch.where(own >= 0.5, LABELS, LABELS[partners]))


def test_cutmix_pastes_a_box_and_blends_nothing():
    mixing = draw_mixing(0, 1.0, 64, 20, seed=5)
    images = torch.arange(64.0)[:, None, None, None].expand(64, 3, 20, 20)
    mixed = mixing.mixed(images, slice(None))
    for place, (y0, y1, x0, x1) in enumerate(mixing.boxes.tolist()):
        assert mixing.shares[place] == pytest.approx(1 - (y1 - y0) * (x1 - x0) / 400)
        expected = torch.full((20, 20), float(place))
        expected[y0:y1, x0:x1] = (place + 32) % 64
        assert torch.equal(mixed[place], expected.expand(3, 20, 20))
    assert torch.equal(images[0], torch.zeros(3, 20, 20))


def test_of_both_methods_each_image_draws_one():
    mixing = draw_mixing(0.5, 0.5, 400, 32, seed=1)
    pasted = mixing.boxes[:, 1] * mixing.boxes[:, 3] > 0
    assert 0.4 < pasted.double().mean() < 0.6
    assert not (draw_mixing(0.5, 0, 40, 32, seed=1).boxes).any()
    middle = draw_mixing(100.0, 0, 400, 32, seed=1).shares
    assert abs(float(middle.mean()) - 0.5) < 0.02
    assert float(middle.std()) < 0.06  # of Beta(100, 100): .035


def test_processes_that_share_a_batch_have_the_targets_of_one():
    labels = torch.tensor([0, 1, 1, 3, 2, 1, 0, 2])
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    settings = {"smoothing": 0.2, "weights": torch.tensor([1.0, 2, 3, 4]), "mixup": 1, "cutmix": 1}
    whole = targets_of(Labels(labels=labels), images=images, **settings)
    for rank in range(2):
        share = targets_of(Labels(rank, 2, labels), images=images, **settings)
        assert all(torch.equal(mine, every[rank::2]) for mine, every in zip(share, whole, strict=True))
    with pytest.raises(UserError, match=r"6 images are not a multiple of 2 x 2 processes"):
        Targets(Labels(0, 2), 0.0, None, 1.0, 0.0, seed=0)


def test_what_is_drawn_depends_on_epoch_and_step_and_not_on_where_an_epoch_continues():
    settings = {**BASE, **ALL, "neuron_selection": "random"}
    config = resolve({}, settings).config
    with open_data(config.data_provider, dataset("digits"), 0) as data:
        task = Classification(data, CPU, Targets.of_run(config, data))
        whole = [list(task.batches(epoch, 0))[:4] for epoch in (0, 1)]
        later = list(task.batches(1, 2))[:2]
    for mine, theirs in zip(later, whole[1][2:], strict=True):
        assert all(map(torch.equal, mine, theirs))
    assert all(not torch.equal(one[2], other[2]) for one, other in pairwise([*whole[0], *whole[1]]))
    assert all(batch[0].is_contiguous(memory_format=torch.channels_last) for batch in whole[0])


def test_without_settings_the_labels_are_the_targets():
    config = resolve({}, BASE).config
    assert Targets.of_run(config, None) is None


def test_mixing_with_oneself_changes_nothing():
    images = torch.randn(4, 3, 8, 8)
    mixing = Mixing(torch.ones(4), torch.zeros(4, 4, dtype=torch.int64))
    assert torch.equal(mixing.mixed(images, slice(None)), images)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"label_smoothing": 1}, "label_smoothing 1 is not allowed: it must be less than 1"),
        ({"mixup": -0.1}, r"mixup -0.1 is not allowed: it must be greater than or equal to 0"),
        ({"cutmix": 1000}, "cutmix 1000 is not allowed"),
        ({"class_weights": [1, 0]}, "class_weights 0 is not allowed: it must be greater than 0"),
        ({"class_weights": "even"}, "class_weights 'even' is not allowed: a list is expected.*or balanced"),
        ({"class_weights": [1]}, "class_weights"),
        ({"objective": "tent", "mixup": 0.2}, r"mixup 0.2 is not allowed with objective 'tent'"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(settings, problem):
    with pytest.raises(UserError, match=problem) as caught:
        resolve({}, settings)
    assert "\n" not in str(caught.value)


def test_as_many_weights_as_classes_are_expected(tmp_path):
    with (
        pytest.raises(UserError, match="class_weights has 3 weights, but the data set has 10 classes"),
        run_of(tmp_path, **SETTINGS, class_weights=[1, 2, 3]),
    ):
        pass


def outcome(folder, stop=None, **settings):
    """Summary, metrics and weights of a run that is stopped after a step and resumed."""
    summary, metrics, run = stopped_and_resumed(lambda: run_of(folder, **settings), stop)
    return summary, metrics, list(run.network.state_dict().values())


@pytest.mark.slow
def test_it_resumes_bit_for_bit_in_mid_epoch(tmp_path):
    whole = outcome(tmp_path / "whole", **SETTINGS, **ALL)
    parts = outcome(tmp_path / "parts", (1, 17), **SETTINGS, **ALL)
    assert parts[:2] == whole[:2]
    assert all(map(torch.equal, parts[2], whole[2]))


@pytest.mark.slow
def test_micro_batches_change_nothing_but_the_last_digits(tmp_path):
    settings = {**SETTINGS, **ALL, "n_epochs": 1, "norm_mode": "frozen"}
    found = []
    for size in (None, 5):
        settings["micro_batch_size"] = size
        with run_of(tmp_path / str(size), network=double_toy(), **settings) as (run, _):
            train(run)
            found.append([*run.network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def trained_together(folder, processes=SINGLE_PROCESS):
    settings = {**SETTINGS, **ALL, "n_epochs": 1, "norm_mode": "frozen"}
    with run_of(folder, processes, double_toy(), **settings) as (run, _):
        train(run)
        return [*run.network.parameters()]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    assert_two_are_one(trained_together, tmp_path)
