"""Figures of an evaluation, against scikit-learn and by hand."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch

from neq.results.evaluation import Evaluation
from neq.results.report.quality import Quality, calibration, calibration_error, cluster_scores

# The example of the page on adaptation: labels and predictions of six images.
LABELS, PREDICTED = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]


def evaluation(logits, labels, features=None, classes=None):
    logits, labels = torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)
    features = torch.empty(0) if features is None else torch.tensor(features, dtype=torch.float32)
    return Evaluation(
        classes=tuple(classes or "abcdefgh"[: logits.shape[1]]),
        names=tuple(f"{at}.jpg" for at in range(len(labels))),
        logits=logits,
        labels=labels,
        features=features,
        featured=torch.arange(len(features)),
        wrong=torch.tensor([2, 5]) if len(labels) == 6 else torch.empty(0, dtype=torch.int64),
        photos=torch.zeros(2 if len(labels) == 6 else 0, 3, 4, 4, dtype=torch.uint8),
        steps=1,
    )


@pytest.fixture
def six():
    """Predictions as above, by one-hot outputs."""
    return Quality(evaluation(np.eye(3)[PREDICTED], LABELS))


@pytest.fixture
def many():
    """300 images of four classes, the last without images and predictions, and features."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    logits = random.normal(size=(300, 4)) + 2 * np.eye(4)[labels]
    logits[:, 3] = -9
    features = random.normal(size=(300, 6)) + 8 * np.eye(6)[labels]
    return Quality(evaluation(logits, labels, features))


def test_macro_figures_by_hand(six):
    assert six.accuracy == 4 / 6
    assert six.macro == pytest.approx({"precision": 0.5, "recall": 0.555556, "f1": 0.488889}, abs=1e-6)
    assert six.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 1, 0]]
    # -ln of softmax: e / (e + 2) where right, 1 / (e + 2) where wrong.
    right, wrong = math.log(math.e + 2) - 1, math.log(math.e + 2)
    assert six.loss == pytest.approx((4 * right + 2 * wrong) / 6)


def test_clusters_by_hand():
    found = cluster_scores(LABELS, PREDICTED)
    expected = {"nmi": 0.386253442857, "ri": 0.533333333333, "ari": 0.036697247706}
    assert found == pytest.approx(expected, abs=1e-12)


def test_figures_of_scikit_learn(many):
    labels, predicted = many.evaluation.labels.numpy(), many.evaluation.predicted.numpy()
    assert many.accuracy == sklearn.metrics.accuracy_score(labels, predicted)
    shares = many.evaluation.probabilities.double().numpy()
    shares /= shares.sum(1, keepdims=True)
    assert many.loss == pytest.approx(sklearn.metrics.log_loss(labels, shares, labels=range(4)), rel=1e-5)
    assert (many.confusion == sklearn.metrics.confusion_matrix(labels, predicted, labels=range(4))).all()
    report = sklearn.metrics.classification_report(
        labels, predicted, labels=range(4), output_dict=True, zero_division=0
    )
    for row in many.classes.to_dict("records"):
        of_class = report[str("abcd".index(row["class"]))]
        assert row["precision"] == of_class["precision"]
        assert row["recall"] == of_class["recall"]
        assert row["f1"] == of_class["f1-score"]
        assert row["images"] == of_class["support"]
    assert many.macro["f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert many.classes.iloc[3].to_dict() == {"class": "d", "images": 0, "precision": 0, "recall": 0, "f1": 0}


def test_confused_pairs(six, many):
    assert six.confused().to_dict("records") == [
        {"class": "a", "predicted": "b", "images": 1, "share": 1 / 3},
        {"class": "c", "predicted": "b", "images": 1, "share": 1.0},
    ]
    found = many.confused(3)
    assert len(found) == 3
    off = many.confusion - np.diag(np.diag(many.confusion))
    assert found["images"].tolist() == sorted(off.flatten().tolist(), reverse=True)[:3]
    assert Quality(evaluation(np.eye(3), [0, 1, 2])).confused().empty


def test_wrong_photos_are_named(six):
    first, second = six.wrong()
    assert (first.name, first.label, first.predicted) == ("2.jpg", "a", "b")
    assert (second.name, second.label) == ("5.jpg", "c")
    assert first.probability == pytest.approx(math.e / (math.e + 2))
    assert first.photo.shape == (4, 4, 3)


def test_calibration_by_hand():
    # Four of probability .9 of which two are right, one of .6 that is right, one of 1 that is right:
    # ECE = 4/6 |.5 - .9| + 1/6 |1 - .6| + 1/6 |1 - 1|.
    shares = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 1.0])
    hits = np.array([True, True, False, False, True, True])
    bins = calibration(shares, hits, bins=15)
    assert bins["bin"].tolist() == [8, 13, 14]
    assert bins["images"].tolist() == [1, 4, 1]
    assert calibration_error(bins) == pytest.approx(4 / 6 * 0.4 + 1 / 6 * 0.4)
    # A probability on an edge belongs to the bin below it.
    assert calibration(np.array([1 / 2, 0.500001]), np.array([True, True]), bins=2)["bin"].tolist() == [0, 1]


def test_a_network_that_is_as_right_as_it_is_sure_is_calibrated(many):
    assert calibration_error(calibration(np.full(10, 0.7), np.arange(10) < 7)) == pytest.approx(0)
    assert 0 < many.ece < 1


def test_features_in_clusters_of_their_classes(many):
    assert many.clusters == pytest.approx({"nmi": 1, "ri": 1, "ari": 1})
    places, labels = many.map
    assert places.shape == (300, 2)
    assert (labels == many.evaluation.labels.numpy()).all()
    centres = np.stack([places[labels == label].mean(0) for label in range(3)])
    nearest = ((places[:, None] - centres) ** 2).sum(2).argmin(1)
    assert (nearest == labels).mean() > 0.95


def test_without_features_there_is_neither(six):
    assert six.clusters is None
    assert six.map is None
    nan = Quality(evaluation(np.eye(3)[PREDICTED * 3], LABELS * 3, np.full((18, 2), np.nan)))
    assert nan.clusters is None
    assert nan.map is None


def test_features_that_are_all_the_same_are_no_error():
    same = Quality(evaluation(np.eye(3)[PREDICTED * 3], LABELS * 3, np.ones((18, 2))))
    assert same.clusters["ari"] == pytest.approx(0)
    assert same.map is None
    line = np.linspace(0, 1, 18)[:, None] * np.ones((1, 5))
    assert np.isfinite(Quality(evaluation(np.eye(3)[PREDICTED * 3], LABELS * 3, line)).map[0]).all()
