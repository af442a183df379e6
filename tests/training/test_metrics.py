from neq.training.metrics import best_scores, score_metrics


def after_epochs(epochs, best_by="top1"):
    """The best scores after epochs of (validation, test, is_best)."""
    best = {}
    for number, (validation, test, is_best) in enumerate(epochs):
        best = best_scores(best, number, validation, test, best_by, is_best)
    return best


def test_the_best_epochs_scores_are_its_own_and_the_highest_test_score_of_all():
    best = after_epochs(
        [
            ({"top1": 50.0, "loss": 2.0}, {"top1": 40.0, "loss": 2.1}, True),
            ({"top1": 60.0, "loss": 1.0}, {"top1": 30.0, "loss": 1.1}, True),
            ({"top1": 55.0, "loss": 1.5}, {"top1": 90.0, "loss": 0.5}, False),
        ]
    )
    expected = {"epoch": 1, "val_top1": 60.0, "val_loss": 1.0, "test_top1": 30.0, "highest_test_top1": 90.0}
    assert best == expected


def test_without_validation_there_are_no_validation_scores():
    best = after_epochs([(None, {"top1": 40.0, "loss": 2.0}, True)])
    expected = {"epoch": 0, "val_top1": None, "val_loss": None, "test_top1": 40.0, "highest_test_top1": 40.0}
    assert best == expected


def test_scores_may_be_negative_and_of_any_name():
    epochs = [({"r2": -3.0}, {"r2": -2.0}, True), ({"r2": -4.0}, {"r2": -5.0}, False)]
    best = after_epochs(epochs, "r2")
    assert best == {"epoch": 0, "val_r2": -3.0, "test_r2": -2.0, "highest_test_r2": -2.0}
    metrics = score_metrics({"loss": 1.0, "lr": 0.1}, epochs[1][0], epochs[1][1], best, "r2")
    assert metrics == {
        "lr": 0.1,
        "train": {"train/loss": 1.0, "train/lr": 0.1},
        "valid": {"val/r2": -4.0, "val/best": -3.0},
        "test": {"test/r2": -5.0, "test/best": -2.0, "test/r2_at_valid_best": -2.0},
    }


def test_splits_that_are_not_measured_are_left_out():
    assert set(score_metrics({"top1": 10.0, "loss": 2.0, "lr": 0.1}, None, None, {}, "top1")) == {
        "lr",
        "train",
    }
