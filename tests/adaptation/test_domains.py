"""Two data sets with the same classes, and what is refused."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from neq.adaptation.domains import matched
from neq.training import train
from neq.utils.errors import UserError
from tests.adaptation.runs import adaptation, domains, refusal, write


def test_classes_are_matched_by_name_whatever_their_order():
    order = matched(("cat", "dog", "elk"), ("elk", "cat", "dog"), "photo", "sketch")
    assert order.tolist() == [2, 0, 1]


@pytest.mark.parametrize(("source", "target"), [(("cat", "dog"), ("cat",)), (("cat",), ("cat", "dog"))])
def test_a_class_of_one_domain_alone_is_refused(source, target):
    with pytest.raises(UserError, match=r"class 'dog' \(one of 1\) is in .* but not in .*by name"):
        matched(source, target, "photo", "sketch")


def test_labels_of_the_target_are_renumbered_where_its_classes_stand_in_another_order(tmp_path):
    source, _ = domains(tmp_path)
    digits = load_digits()
    x, y = np.round(digits.images * 255 / 16).astype(np.uint8)[160:310], digits.target[160:310]
    names = np.array([str(9 - number) for number in range(10)])
    other = tmp_path / "reversed.npz"
    np.savez(other, x_train=x[:120], y_train=9 - y[:120], x_test=x[120:], y_test=9 - y[120:], classes=names)
    with adaptation(tmp_path / "run", "source", (source, str(other))) as (run, _):
        found = torch.cat([labels for _, labels in run.task.domains.evaluated_target("test")])
    assert found.tolist() == y[120:].tolist()


def test_every_image_of_the_target_is_passed_without_its_label(tmp_path):
    with adaptation(tmp_path, "mcc", domains(tmp_path, images=150)) as (run, _):
        task = run.task.domains
        assert task.rounds == 150 // 32
        numbers = torch.cat([numbers for _, numbers in task.target_batches(None)])
        assert sorted(numbers.tolist()) == list(range(150))
        of_round = torch.cat([numbers for _, numbers in task.target_batches(0)])
        assert len(of_round.unique()) == len(of_round) == 150 // 32 * 32
        rest = torch.cat([numbers for _, numbers in task.target_batches(0, 2)])
        assert torch.equal(rest, of_round[64:])


def test_the_smaller_domain_repeats(tmp_path):
    with adaptation(tmp_path, "mcc", domains(tmp_path, images=330)) as (run, _):
        source, steps = run.task.domains.source, run.task.steps_per_epoch
        assert source.steps_per_epoch < steps
        batches = list(run.task.batches(0, 0))
        assert len(batches) == steps
        again = list(run.task.batches(0, 5))
        assert torch.equal(again[0].images, batches[5].images)
        assert [batch.progress for batch in batches] == [step / (2 * steps) for step in range(steps)]


def test_what_does_not_belong_together_is_refused(tmp_path):
    source, target = domains(tmp_path)
    both = (source, target)
    assert "needs a second data set; give it with --target" in refusal(tmp_path, "mcc", both, target=None)
    assert "give two domains" in refusal(tmp_path, "mcc", (source, source))
    no_root = {"target": "image_folder", "target_root": None}
    assert "give --target_root DIR" in refusal(tmp_path, "mcc", both, **no_root)
    x = np.zeros((200, 8, 8), np.uint8)
    seven = write(tmp_path / "seven.npz", x, np.arange(200) % 7)
    assert "class '7' (one of 3)" in refusal(tmp_path, "mcc", (source, seven))
    one = write(tmp_path / "one.npz", x, np.zeros(200, int))
    assert "at least 2 are needed" in refusal(tmp_path, "mcc", (source, one))
    few = domains(tmp_path, images=50)
    found = refusal(tmp_path, "mcc", few, base_batch_size=64)
    assert "39 training images, fewer than base_batch_size 64; lower that" in found


@pytest.mark.parametrize("method", ["mcc", "source", "shot"])
def test_training_does_not_depend_on_the_labels_of_the_target(tmp_path, method):
    mixed = np.random.default_rng(0).permutation(load_digits().target[160:310])
    weights = []
    for name, labels in (("own", None), ("mixed", mixed)):
        folder = tmp_path / name
        folder.mkdir()
        with adaptation(folder, method, domains(folder, labels=labels), n_epochs=1) as (run, _):
            train(run)
            weights.append(run.network.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_part_is_of_the_images_that_are_learned_with_labels(tmp_path):
    files = domains(tmp_path, images=150)
    counts = {}
    for method in ("mcc", "labelled"):
        settings = {"train_part": [0, 0.4], "base_batch_size": 16}
        with adaptation(tmp_path / method, method, files, **settings) as (run, _):
            target = run.task.domains.target
            counts[method] = sum(target.counts.values())
            assert (
                len({n for _, numbers in target.unlabelled_batches(None) for n in numbers.tolist()})
                == (counts[method])
            )
    assert counts["mcc"] == 150
    assert counts["labelled"] < 100
    few = {"train_part": [0, 0.2], "base_batch_size": 24}  # 25 of the source's images
    assert "24 training images" not in refusal(tmp_path, "labelled", files, **few)
    assert "23 training images, fewer than base_batch_size 24" in refusal(tmp_path, "labelled", files, **few)


def test_statistics_do_not_depend_on_the_batches_of_evaluations(tmp_path):
    found = []
    for images in (7, 50):
        settings = {"test_batch_size": images, "neuron_selection": "none", "initialization": "none"}
        with adaptation(tmp_path / f"{images}", "adabn", domains(tmp_path), n_epochs=1, **settings) as (
            run,
            _,
        ):
            train(run)
            found.append(run.network.norm2.running_var.clone())
    assert torch.equal(*found)
